"""A call that may be on its way and is not wanted any more: adopted where it arrived, else its id is spent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from database.tables import log_events
from oma.domain.actions import Action, ActionKind
from oma.domain.errors import Code, OmaError
from oma.domain.jobs import Job
from oma.domain.resolving import Resolution
from oma.domain.states import ActionState, JobState
from oma.domain.words import Words
from oma.ports import Fault, JobFilter, RemoteStatus, UpstreamError
from oma.service.cleanup import submit_cleanup
from oma.service.issues import Said, resolve_issue
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import FIGURES, Stage, open_stage

pytestmark = pytest.mark.rule("6-take-over")
SPENT_ON = {"createTags", "deleteTags"}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with open_stage(figures=replace(FIGURES, expires_s=150.0)) as opened:
        yield opened


async def one_disk(stage: Stage) -> BrokenVm:
    return await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))


async def killed_before(stage: Stage, vm: BrokenVm, command: str) -> Job:
    """The process dies, or stands still, with the intent journaled and the call not sent."""
    job = await stage.submit(vm)
    weather = (stage.volumes if command in {"attachVolume", "detachVolume"} else stage.cloud).weather
    weather.gates[command] = asyncio.Event()
    running = asyncio.create_task(stage.work())
    await weather.until_asked(command)
    running.cancel()
    await asyncio.wait({running})
    weather.gates.clear()
    await stage.break_off(job.id)
    return job


async def the(stage: Stage, job: Job, kind: ActionKind) -> Action:
    (action,) = await stage.actions(job.id, kind)
    return action


async def send_late_revert(stage: Stage, action: Action) -> Fault | None:
    """What becomes of the very call when it comes in at last; None: it was taken."""
    try:
        await stage.cloud.submit_revert(
            action.target.get_snapshot_id(), request_id=action.request_id, expires_at=action.expires_at
        )
    except UpstreamError as error:
        return error.fault
    return None


def spent(stage: Stage, request_id: str) -> bool:
    return any(one.request_id == request_id and one.command in SPENT_ON for one in stage.world.accepted())


async def said(stage: Stage, job: Job) -> str:
    return "\n".join(row["message"] for row in await stage.rows(log_events, job_id=job.id))


async def resolved(stage: Stage, job: Job, resolution: Resolution) -> None:
    for issue in await stage.open_issues(job.id):
        await resolve_issue(stage.deps, issue["id"], Said(resolution, "Looked at it.", "anna"))


async def test_a_revert_that_must_not_be_sent_any_more_can_never_run(stage: Stage) -> None:
    vm = await one_disk(stage)
    job = await killed_before(stage, vm, "revertSnapshot")
    stage.world.change_volume(vm.volume_id(0), vm_id=stage.world.oma_vm_id)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    assert (revert.state, revert.evidence["call"]) == (ActionState.ROLLED_BACK, "spent")
    assert spent(stage, revert.request_id)
    assert await send_late_revert(stage, revert) is Fault.REFUSED
    assert stage.count("revertSnapshot") == 0


async def test_it_runs_under_another_id_when_the_person_has_put_things_right(stage: Stage) -> None:
    vm = await one_disk(stage)
    job = await killed_before(stage, vm, "revertSnapshot")
    stage.world.change_volume(vm.volume_id(0), vm_id=stage.world.oma_vm_id)
    await stage.work()
    given_up = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    stage.world.change_volume(vm.volume_id(0), vm_id=None)
    await resolved(stage, job, Resolution.ROLLED_BACK)
    await stage.work()
    ended = await stage.check(job.id)
    assert ended.state is JobState.COMPLETED, ended.error
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    assert (revert.id, revert.attempt) == (given_up.id, 2)
    assert [one.request_id for one in stage.world.accepted("revertSnapshot")] == [revert.request_id]


async def test_one_that_came_in_meanwhile_is_followed_to_its_end(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the question for its id and the end of it, the late call arrives."""
    vm = await one_disk(stage)
    job = await killed_before(stage, vm, "revertSnapshot")
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    ask = stage.cloud.list_snapshots

    async def arrives_now(ids: object) -> object:
        monkeypatch.setattr(stage.cloud, "list_snapshots", ask)
        assert await send_late_revert(stage, revert) is None
        return []

    monkeypatch.setattr(stage.cloud, "list_snapshots", arrives_now)
    await stage.work()
    ended = await stage.check(job.id)
    assert ended.state is JobState.PARKED
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    assert (revert.state, revert.attempt) == (ActionState.EXECUTED, 1)
    assert stage.count("revertSnapshot") == 1
    assert "had arrived" in await said(stage, job)


async def test_where_no_id_can_be_spent_its_expiry_is_waited_out(stage: Stage) -> None:
    stage.cloud.may_burn = False
    vm = await one_disk(stage)
    job = await killed_before(stage, vm, "revertSnapshot")
    stage.world.change_volume(vm.volume_id(0), vm_id=stage.world.oma_vm_id)
    await stage.work()
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    assert revert.expires_at is not None
    assert stage.clock.now() >= revert.expires_at + timedelta(seconds=60)
    assert "it may arrive until" in await said(stage, job)
    assert await send_late_revert(stage, revert) is Fault.REFUSED


@pytest.mark.parametrize("resolution", [Resolution.ROLLED_BACK, Resolution.APPLIED, Resolution.RESYNC])
async def test_no_word_is_taken_before_the_call_can_not_come_any_more(stage: Stage, resolution: Resolution) -> None:
    stage.cloud.weather.lose_requests.append("revertSnapshot")
    stage.cloud.weather.silent_for = {"query_job"}
    job = await stage.clean(await one_disk(stage))
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    assert (revert.state, revert.error and revert.error["unknown"]) == (ActionState.EXECUTION_FAILED, True)
    stage.cloud.weather.silent_for.clear()
    assert not spent(stage, revert.request_id)
    await resolved(stage, job, resolution)
    assert spent(stage, revert.request_id)
    assert await send_late_revert(stage, revert) is Fault.REFUSED


async def test_a_word_about_a_call_that_comes_in_just_now_is_refused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.cloud.weather.lose_requests.append("revertSnapshot")
    stage.cloud.weather.silent_for = {"query_job"}
    job = await stage.clean(await one_disk(stage))
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    stage.cloud.weather.silent_for.clear()
    burn = stage.cloud.burn

    async def arrives_first(*args: object) -> object:
        assert await send_late_revert(stage, revert) is None
        return await burn(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(stage.cloud, "burn", arrives_first)
    with pytest.raises(OmaError) as raised:
        await resolved(stage, job, Resolution.ROLLED_BACK)
    assert raised.value.code is Code.RESOLUTION_CONTRADICTED
    assert "still under way" in raised.value.sentence
    (issue,) = await stage.open_issues(job.id)
    assert issue["state"] == "open"


async def test_a_word_comes_too_early_while_the_call_may_arrive_and_can_not_be_stopped(stage: Stage) -> None:
    stage.cloud.may_burn = False
    stage.cloud.weather.lose_requests.append("revertSnapshot")
    stage.cloud.weather.silent_for = {"query_job"}
    job = await stage.clean(await one_disk(stage))
    stage.cloud.weather.silent_for.clear()
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    with pytest.raises(OmaError, match="may still arrive until") as raised:
        await resolved(stage, job, Resolution.ROLLED_BACK)
    assert raised.value.code is Code.STATE_UNKNOWN
    assert revert.expires_at is not None
    await stage.clock.sleep((revert.expires_at - stage.clock.now()).total_seconds() + 60)
    await resolved(stage, job, Resolution.ROLLED_BACK)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED


async def test_the_volume_daemon_takes_back_a_detach_that_is_given_up(stage: Stage) -> None:
    vm = await one_disk(stage)
    job = await killed_before(stage, vm, "detachVolume")
    elsewhere = "0b000000-0000-4000-8000-0000000000ff"
    stage.world.seed(vms=[{"id": elsewhere, "name": "somebody-elses"}])
    stage.world.change_volume(vm.volume_id(0), vm_id=elsewhere)
    await stage.work()
    await stage.check(job.id)
    detach = await the(stage, job, ActionKind.DETACH_VOLUME)
    late = await stage.volumes.submit_detach(vm.volume_id(0), request_id=detach.request_id, fence=1000)
    assert (await stage.volumes.wait_operation(late, 5)).status is RemoteStatus.REFUSED
    assert stage.world.holder_of(vm.volume_id(0)) == elsewhere
    assert stage.count("detachVolume") == 0
    assert spent(stage, detach.request_id), "CloudStack would have known it by the same id"


async def test_the_attempt_before_is_given_up_where_force_lets_another_begin(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    stage.cloud.weather.lose_requests.append("deleteSnapshot")
    stage.cloud.weather.silent_for = {"query_job"}
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    first = await the(stage, job, ActionKind.DELETE_SNAPSHOT)
    stage.cloud.weather.silent_for.clear()
    words = Words(force=True, resume=True, reason="It has to go on.")
    await submit_cleanup(stage.deps, replace(job.request, words=words))
    await stage.work()
    ended = await stage.check(job.id)
    assert ended.state is JobState.COMPLETED, ended.error
    again = await the(stage, job, ActionKind.DELETE_SNAPSHOT)
    assert (again.attempt, again.state) == (2, ActionState.EXECUTED)
    assert spent(stage, first.request_id)
    assert [one.request_id for one in stage.world.accepted("deleteSnapshot")] == [again.request_id]


async def test_an_open_call_is_found_again_before_anything_new_is_begun(stage: Stage) -> None:
    """The test VM's disks: one detach may be on its way, the other was not begun."""
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk()], test_vm_state="Stopped"))
    job = await killed_before(stage, vm, "detachVolume")
    open_ids = {one.request_id for one in await stage.actions(job.id, ActionKind.DETACH_VOLUME)}
    await stage.sql(f"DELETE FROM oma_actions WHERE id = '{max(open_ids)}'")
    kept = min(open_ids)
    stage.volumes.weather.asked.clear()
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    detaches = [one.request_id for one in stage.world.accepted("detachVolume")]
    assert detaches[0] == kept
    asked = [one for one in stage.volumes.weather.asked if one in {"wait_operation", "detachVolume"}]
    assert asked[:2] == ["wait_operation", "detachVolume"], "asked by its id before anything was sent"


async def test_a_call_expires_with_its_lease_at_the_latest(stage: Stage) -> None:
    class Lease:
        def left_s(self, job_id: str) -> float:
            del job_id
            return 7.0

    await stage.submit(await one_disk(stage))
    await stage.work(replace(stage.tools, leases=Lease()))  # type: ignore[arg-type]
    (job,) = (await stage.deps.jobs.list_jobs(JobFilter(), 10, None)).items
    for action in await stage.actions(job.id):
        if action.expires_at is not None and action.kind is not ActionKind.CLEAR_MARKER:
            assert action.intent_at is not None
            assert action.expires_at - action.intent_at < timedelta(seconds=8)


async def test_the_job_that_an_id_was_spent_on_proves_nothing(stage: Stage) -> None:
    """It may well have succeeded: nobody may take it for the revert's own job."""
    stage.cloud.weather.lose_requests += ["revertSnapshot"] * 3
    job = await stage.clean(await one_disk(stage))
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    assert spent(stage, revert.request_id)
    await resolved(stage, job, Resolution.APPLIED)
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    assert revert.state is ActionState.MANUAL_MARKED_AS_EXECUTED, "a word, and no proof"


async def test_a_process_that_died_after_it_spent_an_id_leaves_no_proof_behind(stage: Stage) -> None:
    vm = await one_disk(stage)
    job = await killed_before(stage, vm, "revertSnapshot")
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    await stage.cloud.burn(revert.request_id, revert.kind, stage.world.oma_vm_id, "oma")
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    assert (revert.state, revert.error and revert.error["unknown"]) == (ActionState.EXECUTION_FAILED, False)
    await resolved(stage, job, Resolution.ROLLED_BACK)
    await stage.work()
    ended = await stage.check(job.id)
    assert ended.state is JobState.COMPLETED, ended.error
    assert (await the(stage, job, ActionKind.REVERT_SNAPSHOT)).attempt == 2


@pytest.mark.rule("6-own-ids")
async def test_a_call_whose_time_has_passed_meanwhile_gets_a_new_one_and_is_sent(stage: Stage) -> None:
    """The process stood still for a while and nobody took its run over."""
    vm = await one_disk(stage)
    job = await stage.submit(vm)
    gate = stage.cloud.weather.gates["revertSnapshot"] = asyncio.Event()
    running = asyncio.create_task(stage.work())
    await stage.cloud.weather.until_asked("revertSnapshot")
    first = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    assert first.expires_at is not None
    await stage.clock.sleep((first.expires_at - stage.clock.now()).total_seconds() + 1)
    gate.set()
    await running
    ended = await stage.check(job.id)
    assert ended.state is JobState.COMPLETED, ended.error
    revert = await the(stage, job, ActionKind.REVERT_SNAPSHOT)
    assert (revert.attempt, revert.request_id) == (1, first.request_id)
    assert revert.expires_at is not None
    assert revert.expires_at > first.expires_at
