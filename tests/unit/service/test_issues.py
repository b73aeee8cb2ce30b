"""A person settles issues: the world is asked anew, the run goes on, and a word is never taken for a proof."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from database.tables import cbt_history, oma_audit, oma_leaks, vm_disks, vm_replication_contexts
from oma.domain.actions import ActionKind
from oma.domain.errors import Code, OmaError
from oma.domain.jobs import Job
from oma.domain.records import ReplicationRecord
from oma.domain.resolving import Resolution
from oma.domain.states import ActionState, JobState, Phase
from oma.ports import IssueFilter
from oma.service.issues import Outcome, Said, get_issue, get_next_issue, list_issues, resolve_issue
from oma.service.queries import get_vm
from oma.workflow.needs import needs_cleanup
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import FIGURES, Stage, open_stage

WINDOW_S = 200.0


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    figures = replace(FIGURES, revert_window_s=WINDOW_S, revert_attempts=1)
    async with open_stage(figures=figures) as opened:
        yield opened


async def _parked_revert(stage: Stage, kind: FaultKind = FaultKind.JOB_FAIL) -> tuple[BrokenVm, Job, str]:
    """One of two reverts fails; the other is proven."""
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    stage.world.add_fault(kind, "revertSnapshot", errorcode=530, match={"id": vm.snapshot_id(0)})
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    (issue,) = await stage.open_issues(job.id)
    return vm, job, str(issue["id"])


async def _say(stage: Stage, issue_id: str, resolution: Resolution, notes: str = "I looked at it") -> Outcome:
    return await resolve_issue(stage.deps, issue_id, Said(resolution, notes, actor="anna"))


async def _refused(stage: Stage, issue_id: str, said: Said) -> OmaError:
    with pytest.raises(OmaError) as raised:
        await resolve_issue(stage.deps, issue_id, said)
    return raised.value


async def _attached_at(stage: Stage, vm: BrokenVm) -> float:
    return next(one.at for one in stage.world.accepted("attachVolume") if one.volume_id == vm.volume_id(0))


@pytest.mark.rule("5-unknown-revert")
async def test_a_revert_that_runs_again_waits_out_the_window_and_is_then_proven(stage: Stage) -> None:
    vm, job, issue_id = await _parked_revert(stage)
    outcome = await _say(stage, issue_id, Resolution.ROLLED_BACK)
    assert outcome.settled.resumed
    assert outcome.waits_until is not None
    await stage.work()
    done = await stage.check(job.id)
    assert done.state is JobState.COMPLETED, done.error
    (again,) = [one for one in stage.world.accepted("revertSnapshot") if one.number > 1][-1:]
    assert again.at >= outcome.waits_until.timestamp()
    assert again.snapshot_id == vm.snapshot_id(0)
    assert done.result is not None
    assert done.result["replica"] == "ready"
    assert stage.world.content[vm.volume_id(0)] == vm.clean_content(0)
    assert not any(stage.world.snapshot_is_listed(one) for one in vm.snapshot_ids)


@pytest.mark.rule("5-unknown-revert")
async def test_applied_on_a_revert_is_no_proof_the_disk_goes_home_and_every_snapshot_stays(stage: Stage) -> None:
    vm, job, issue_id = await _parked_revert(stage)
    outcome = await _say(stage, issue_id, Resolution.APPLIED)
    assert outcome.waits_until is not None
    await stage.work()
    done = await stage.check(job.id)
    assert done.state is JobState.COMPLETED, done.error
    assert done.result is not None
    assert done.result["replica"] == "unknown"
    assert "person's word" in done.result["next"]
    assert await _attached_at(stage, vm) >= outcome.waits_until.timestamp()
    assert stage.count("deleteSnapshot") == 0
    assert stage.count("revertSnapshot") == 2
    kept = {row["target"]["snapshot_id"]: row for row in await stage.rows(oma_leaks, context_id=vm.context_id)}
    assert set(kept) == set(vm.snapshot_ids)
    assert {row["reason"] for row in kept.values()} == {"I looked at it"}
    states = {one.target.snapshot_id: one.state for one in await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)}
    assert states[vm.snapshot_id(0)] is ActionState.MANUAL_MARKED_AS_EXECUTED
    assert await stage.status(vm) == "ready_for_failover"


@pytest.mark.rule("5-unknown-revert")
async def test_resync_brings_the_disk_home_to_be_copied_whole(stage: Stage) -> None:
    vm, job, issue_id = await _parked_revert(stage)
    outcome = await _say(stage, issue_id, Resolution.RESYNC, "the snapshot is broken")
    assert outcome.waits_until is not None
    await stage.work()
    done = await stage.check(job.id)
    assert done.state is JobState.COMPLETED, done.error
    assert done.result is not None
    assert done.result["replica"] == "resync_required"
    assert await _attached_at(stage, vm) >= outcome.waits_until.timestamp()
    assert stage.count("deleteSnapshot") == 0
    (context,) = await stage.rows(vm_replication_contexts, context_id=vm.context_id)
    assert context["current_status"] == "failed"
    assert "anna said RESYNC: the snapshot is broken" in context["last_operation_summary"]["reason"]
    assert "completed_at" not in context["last_operation_summary"]
    disks = {row["disk_id"]: row["disk_change_id"] for row in await stage.rows(vm_disks, vm_context_id=vm.context_id)}
    assert disks == {"disk-2000": "", "disk-2001": "change-1"}
    (why,) = await stage.rows(cbt_history, job_id=vm.replication_id)
    assert (why["disk_id"], why["previous_change_id"], why["sync_type"]) == ("disk-2000", "change-0", "resync_required")


async def test_a_revert_whose_own_job_succeeded_after_all_is_proven_by_it(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    stage.cloud.weather.lose_answers.append("revertSnapshot")
    stage.cloud.weather.silent_for = {"query_job"}
    job = await stage.clean(vm)
    (issue,) = await stage.open_issues(job.id)
    stage.cloud.weather.silent_for = set()
    (revert,) = stage.world.accepted("revertSnapshot")
    await stage.world.wait_until_ended(revert.request_id)
    error = await _refused(stage, issue["id"], Said(Resolution.ROLLED_BACK, "it did not", actor="anna"))
    assert error.code is Code.RESOLUTION_CONTRADICTED
    assert error.fields["evidence"]["own_job"] == "succeeded"
    assert "APPLIED" in error.fields["next"]
    outcome = await _say(stage, issue["id"], Resolution.APPLIED)
    assert not outcome.waits
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert stage.count("revertSnapshot") == 1


async def test_what_attached_the_volume_since_forbids_another_revert(stage: Stage) -> None:
    vm, _job, issue_id = await _parked_revert(stage)
    stage.world.change_volume(vm.volume_id(0), vm_id=stage.world.oma_vm_id)
    error = await _refused(stage, issue_id, Said(Resolution.ROLLED_BACK, "again, please"))
    assert error.code is Code.RESOLUTION_CONTRADICTED
    assert "never reverted again" in error.sentence
    assert "RESYNC" in error.fields["next"]
    assert stage.count("revertSnapshot") == 2
    last = (await stage.rows(oma_audit))[-1]
    assert (last["action"], last["decision"]) == ("refused", "resolution_contradicted")


async def test_a_delete_is_settled_by_what_cloudstack_lists(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    stage.world.add_fault(FaultKind.JOB_FAIL, "deleteSnapshot", errorcode=530)
    job = await stage.clean(vm)
    (issue,) = await stage.open_issues(job.id)
    assert f"oma audit fix -c {issue['id']} --resolution APPLIED|ROLLED_BACK" in " ".join(issue["guidance"])
    error = await _refused(stage, issue["id"], Said(Resolution.APPLIED, "gone"))
    assert error.code is Code.RESOLUTION_CONTRADICTED
    assert (await stage.job(job.id)).state is JobState.PARKED
    assert (await _say(stage, issue["id"], Resolution.ROLLED_BACK)).settled.resumed
    (delete,) = await stage.actions(job.id, ActionKind.DELETE_SNAPSHOT)
    assert delete.state is ActionState.MANUAL_MARKED_AS_ROLLED_BACK
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert not stage.world.snapshot_is_listed(vm.snapshot_id(0))


async def test_one_finished_by_hand_is_skipped(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    stage.world.add_fault(FaultKind.JOB_FAIL, "deleteSnapshot", errorcode=530)
    job = await stage.clean(vm)
    (issue,) = await stage.open_issues(job.id)
    stage.world.forget_snapshot(vm.snapshot_id(0))
    await _say(stage, issue["id"], Resolution.APPLIED)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    (delete,) = await stage.actions(job.id, ActionKind.DELETE_SNAPSHOT)
    assert delete.state is ActionState.MANUAL_MARKED_AS_EXECUTED


async def test_the_run_goes_on_only_after_the_last_issue(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, times=2)
    job = await stage.clean(vm)
    first, second = await stage.open_issues(job.id)
    outcome = await _say(stage, first["id"], Resolution.ROLLED_BACK)
    assert (outcome.settled.resumed, outcome.settled.open_issue_ids) == (False, (second["id"],))
    assert (await stage.job(job.id)).state is JobState.PARKED
    assert (await _say(stage, second["id"], Resolution.ROLLED_BACK)).settled.resumed
    assert (await stage.job(job.id)).state is JobState.QUEUED
    entries = [row["action"] for row in await stage.rows(oma_audit)]
    assert entries[-3:] == ["issue_resolved", "issue_resolved", "run_resumed"]


async def test_nobody_answers_and_nothing_is_written(stage: Stage) -> None:
    _vm, job, issue_id = await _parked_revert(stage)
    stage.cloud.weather.silent = True
    error = await _refused(stage, issue_id, Said(Resolution.APPLIED, "done"))
    assert error.code is Code.STATE_UNKNOWN
    assert (await stage.job(job.id)).state is JobState.PARKED
    assert len(await stage.open_issues(job.id)) == 1


async def test_insisting_is_for_admins_and_there_are_none(stage: Stage) -> None:
    _vm, _job, issue_id = await _parked_revert(stage)
    error = await _refused(stage, issue_id, Said(Resolution.APPLIED, "done", insist=True))
    assert (error.code, error.fields["field"]) == (Code.INVALID_REQUEST, "insist")


async def test_the_same_word_again_changes_nothing_and_another_comes_too_late(stage: Stage) -> None:
    _vm, _job, issue_id = await _parked_revert(stage)
    await _say(stage, issue_id, Resolution.APPLIED)
    assert not (await _say(stage, issue_id, Resolution.APPLIED)).settled.resumed
    error = await _refused(stage, issue_id, Said(Resolution.RESYNC, "no, this"))
    assert error.code is Code.INVALID_REQUEST


async def test_issues_are_listed_in_pages_and_the_next_is_the_most_urgent(stage: Stage) -> None:
    vm, job, issue_id = await _parked_revert(stage)
    page = await list_issues(stage.deps, IssueFilter(state="open", vm=vm.name, severity="critical"), 1, None)
    assert ([one.id for one in page.items], page.next_cursor) == ([issue_id], None)
    assert (await get_next_issue(stage.deps)).id == issue_id
    assert (await get_issue(stage.deps, issue_id)).job_id == job.id
    empty = await list_issues(stage.deps, IssueFilter(state="resolved"), 50, None)
    assert empty.items == ()
    with pytest.raises(OmaError) as raised:
        await get_issue(stage.deps, issue_id.upper() + "x")
    assert raised.value.code is Code.ISSUE_NOT_FOUND


@pytest.mark.rule("5-unknown-revert")
async def test_a_snapshot_that_is_lost_while_it_waits_has_a_door_out_too(stage: Stage) -> None:
    vm, job, issue_id = await _parked_revert(stage)
    await _say(stage, issue_id, Resolution.ROLLED_BACK)
    stage.world.forget_snapshot(vm.snapshot_id(0))
    await stage.work()
    assert (await stage.job(job.id)).state is JobState.PARKED
    (issue,) = await stage.open_issues(job.id)
    assert (issue["kind"], issue["action_id"]) == ("cleanup-snapshots", None)
    assert "RESYNC" in " ".join(issue["guidance"])
    assert (await _say(stage, issue["id"], Resolution.RESYNC)).settled.resumed
    await stage.work()
    done = await stage.check(job.id)
    assert done.state is JobState.COMPLETED, done.error
    assert await stage.status(vm) == "failed"
    assert stage.count("deleteSnapshot") == 0


@pytest.mark.rule("5-unknown-revert")
async def test_a_run_that_was_asked_for_in_part_goes_on_to_its_end_by_a_persons_word(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530)
    job = await stage.clean(vm, phases=(Phase.ANALYZE, Phase.DETACH, Phase.SNAPSHOTS))
    (issue,) = await stage.open_issues(job.id)
    await _say(stage, issue["id"], Resolution.RESYNC)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert await stage.status(vm) == "failed"


async def test_a_daemon_that_stops_while_it_waits_goes_on_waiting_afterwards(stage: Stage) -> None:
    vm, job, issue_id = await _parked_revert(stage)
    outcome = await _say(stage, issue_id, Resolution.APPLIED)
    assert outcome.waits_until is not None
    stop, waiting = asyncio.Event(), asyncio.Event()
    stage.deps.bus.on_event(lambda event: waiting.set() if "is not attached before" in event.sentence else None)
    working = asyncio.create_task(stage.work(replace(stage.tools, stop=stop)))
    await waiting.wait()
    stop.set()
    assert "safe point" in await working
    assert all(one.volume_id != vm.volume_id(0) for one in stage.world.accepted("attachVolume"))
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert await _attached_at(stage, vm) >= outcome.waits_until.timestamp()


async def test_a_resync_is_awaited_until_a_replication_has_completed(stage: Stage) -> None:
    vm, _job, issue_id = await _parked_revert(stage)
    await _say(stage, issue_id, Resolution.RESYNC)
    await stage.work()
    await stage.sql("UPDATE vm_replication_contexts SET current_status = 'cleanup_required'")
    need = (await get_vm(stage.deps, vm.name, None)).need
    assert (need.recommended, need.why) == (False, "A full resync is awaited.")
    records = (await get_vm(stage.deps, vm.name, None)).records
    at = stage.clock.now() + timedelta(hours=1)
    whole = ReplicationRecord("repl-whole", "completed", started_at=at, completed_at=at + timedelta(hours=1))
    later = replace(records, replications=(whole, *records.replications), doubtful_times=())
    assert needs_cleanup(later, at, stage.deps.limits).why != "A full resync is awaited."
