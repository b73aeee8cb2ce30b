"""Planning, submitting and waiting."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from database.tables import metadata, oma_jobs
from oma.domain.changes import JobQueued
from oma.domain.errors import Code, OmaError, Refused
from oma.domain.jobs import CleanupRequest, Job
from oma.domain.states import JobState, Phase
from oma.service.answers import cleanup_answer, dry_run_answer
from oma.service.cleanup import plan_cleanup, submit_cleanup, wait_for_job
from oma.store import SqlJobReader, SqlJournalStore
from oma.workflow.estimate import build_estimate
from oma.workflow.staleness import NOT_KNOWN
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import Stage

STOPPED = BrokenVm(test_vm_state="Stopped")


@pytest.mark.rule("2-reads-first")
async def test_a_dry_run_changes_nothing_and_shows_every_action(stage: Stage) -> None:
    vm = await stage.add()
    before = await _everything(stage)
    asked = CleanupRequest(vm.name, dry_run=True)
    plan = await plan_cleanup(stage.deps, asked)
    assert await _everything(stage) == before
    assert stage.world.orders == []
    answer = dry_run_answer(asked, plan, build_estimate(plan, {}), stage.clock.now())
    assert answer["plan_digest"] == answer["plan"]["plan_digest"] == plan.digest
    assert len(answer["plan"]["actions"]) == 14, "eleven, and three about markers"
    assert answer["message"].startswith("Dry run for pgtest1: 11 actions planned, nothing was changed")


@pytest.mark.rule("2-reads-first")
async def test_a_refused_call_writes_its_audit_entry_and_nothing_else(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    stage.world.forget_snapshot(vm.snapshot_id(0))
    before = await _everything(stage)
    with pytest.raises(Refused) as raised:
        await stage.submit(vm)
    assert raised.value.code is Code.SNAPSHOT_MISSING
    assert [one["code"] for one in raised.value.fields["refusals"]] == ["snapshot_missing"]
    after = await _everything(stage)
    (entry,) = after.pop("oma_audit")
    assert (entry["action"], entry["decision"], entry["job_id"]) == ("refused", "snapshot_missing", None)
    for row in after.pop("oma_sequences"):
        assert row["name"] == "audit"
    assert after == {name: rows for name, rows in before.items() if name in after}


async def test_a_submitted_job_is_queued_wakes_the_worker_and_takes_the_vms_status(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    job = await stage.submit(vm, correlation_id="corr-1", requested_by="tester")
    assert (job.state, job.correlation_id, job.requested_by) == (JobState.QUEUED, "corr-1", "tester")
    assert job.plan.former_status == "failed_over_test"
    assert await stage.status(vm) == "cleanup_required"
    assert stage.deps.wake.is_set()


async def test_a_second_call_names_the_job_that_runs_and_who_holds_it(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    job = await stage.submit(vm)
    with pytest.raises(OmaError) as raised:
        await stage.submit(vm)
    assert raised.value.code is Code.CLEANUP_IN_PROGRESS
    assert (raised.value.fields["job_id"], raised.value.fields["holder"]) == (job.id, "queued")
    await stage.claim()
    with pytest.raises(OmaError) as raised:
        await stage.submit(vm)
    assert raised.value.fields["holder"] == "test"


async def test_two_calls_at_once_give_one_job(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    results = await asyncio.gather(stage.submit(vm), stage.submit(vm), return_exceptions=True)
    (refused,) = [one for one in results if isinstance(one, OmaError)]
    assert refused.code is Code.CLEANUP_IN_PROGRESS
    assert len(await stage.rows(oma_jobs)) == 1


async def test_a_busy_volume_is_waited_for(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    stage.world.change_volume(vm.volume_id(0), state="Snapshotting")
    submitting = asyncio.create_task(stage.submit(vm))
    await stage.volumes.weather.until_asked("scan_devices")
    stage.world.change_volume(vm.volume_id(0), state="Ready")
    assert (await submitting).state is JobState.QUEUED


async def test_a_volume_that_stays_busy_is_refused_in_the_end(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    stage.world.change_volume(vm.volume_id(0), state="Snapshotting")
    with pytest.raises(Refused) as raised:
        await submit_cleanup(replace(stage.deps, busy_wait_s=30.0), CleanupRequest(vm.name))
    assert raised.value.code is Code.VOLUME_BUSY
    assert await stage.status(vm) == "failed_over_test"


async def test_a_busy_volume_beside_another_reason_is_not_waited_for(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    stage.world.change_volume(vm.volume_id(0), state="Snapshotting")
    stage.world.forget_snapshot(vm.snapshot_id(1))
    with pytest.raises(Refused) as raised:
        await submit_cleanup(replace(stage.deps, busy_wait_s=1e9), CleanupRequest(vm.name))
    assert [refusal.code for refusal in raised.value.refusals] == [Code.VOLUME_BUSY, Code.SNAPSHOT_MISSING]


async def test_another_plan_than_the_one_confirmed_is_stale(stage: Stage) -> None:
    vm = await stage.add()
    shown = await plan_cleanup(stage.deps, CleanupRequest(vm.name))
    stage.world.change_vm(vm.test_vm_id, state="Stopped")
    with pytest.raises(Refused) as raised:
        await stage.submit(vm, expect_plan=shown.digest)
    assert raised.value.code is Code.PLAN_STALE
    evidence = raised.value.fields["evidence"]
    assert evidence["expected"] == shown.digest != evidence["current"]
    assert "The VM's test VM's state was Running and is Stopped." in evidence["changed"]
    assert any(change.startswith("No longer planned: Stop ") for change in evidence["changed"])
    assert "was Running and is Stopped" in raised.value.sentence
    now = await plan_cleanup(stage.deps, CleanupRequest(vm.name))
    assert evidence["actions"] == [action.sentence for action in now.actions]
    assert await stage.status(vm) == "failed_over_test"


async def test_a_plan_that_nobody_remembers_is_stale_with_the_present_one_beside(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    with pytest.raises(Refused) as raised:
        await stage.submit(vm, expect_plan="0" * 64)
    evidence = raised.value.fields["evidence"]
    assert evidence["changed"] == [NOT_KNOWN]
    assert evidence["actions"]
    assert evidence["observed"]


async def test_a_key_names_its_run_across_a_restart(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    request = CleanupRequest(vm.name, correlation_id="first")
    job = await submit_cleanup(stage.deps, request, "key-1")
    restarted = replace(stage.deps, jobs=SqlJobReader(stage.door), journal=SqlJournalStore(stage.door))
    again = await submit_cleanup(restarted, replace(request, correlation_id="second"), "key-1")
    assert (again.id, again.correlation_id) == (job.id, "first")
    await stage.work()
    assert (await submit_cleanup(restarted, request, "key-1")).state is JobState.COMPLETED
    with pytest.raises(OmaError) as raised:
        await submit_cleanup(restarted, replace(request, phases=(Phase.DETACH,)), "key-1")
    assert raised.value.code is Code.IDEMPOTENCY_KEY_REUSED
    assert len(await stage.rows(oma_jobs)) == 1


async def test_calls_of_one_key_at_once_are_one_run(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    calls = [submit_cleanup(stage.deps, CleanupRequest(vm.name), "key-1") for _ in range(3)]
    assert len({job.id for job in await asyncio.gather(*calls)}) == 1
    assert len(await stage.rows(oma_jobs)) == 1


async def test_a_call_that_meets_the_run_of_its_own_key_gets_it(stage: Stage) -> None:
    """The other call began its run after this one had looked for the key."""
    vm = await stage.add(STOPPED)
    late = _LateReader(stage)
    asking = asyncio.create_task(
        submit_cleanup(replace(stage.deps, jobs=late), CleanupRequest(vm.name), "key-1"),
    )
    await late.looked.wait()
    job = await submit_cleanup(stage.deps, CleanupRequest(vm.name), "key-1")
    late.go_on.set()
    assert (await asking).id == job.id


async def test_a_busy_volume_is_waited_for_as_long_as_the_caller_waits(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    stage.world.change_volume(vm.volume_id(0), state="Snapshotting")
    deps = replace(stage.deps, busy_wait_s=1e9)
    began = stage.clock.monotonic()
    with pytest.raises(Refused) as raised:
        await submit_cleanup(deps, CleanupRequest(vm.name), patience_s=20.0)
    assert raised.value.code is Code.VOLUME_BUSY
    assert stage.clock.monotonic() - began > 10.0


class _LateReader(SqlJobReader):
    """Its first answer about a key is old news when it arrives."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.door)
        self.looked, self.go_on = asyncio.Event(), asyncio.Event()

    async def find_job_by_key(self, idempotency_key: str) -> tuple[Job, str | None] | None:
        found = await super().find_job_by_key(idempotency_key)
        if not self.looked.is_set():
            self.looked.set()
            await self.go_on.wait()
        return found


class _Racing(SqlJournalStore):
    """Somebody else writes the VM's status just before the first `times` jobs are queued."""

    def __init__(self, stage: Stage, vm: BrokenVm, times: int) -> None:
        super().__init__(stage.door)
        self._stage, self._vm, self.left = stage, vm, times

    async def queue_job(self, queued: JobQueued) -> Job:
        if self.left:
            self.left -= 1
            status = "failed" if self.left % 2 else "ready_for_failover"
            await self._stage.sql(
                f"UPDATE vm_replication_contexts SET current_status = '{status}' "
                f"WHERE context_id = '{self._vm.context_id}'"
            )
        return await super().queue_job(queued)


async def test_a_status_that_changed_meanwhile_is_observed_again(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    job = await submit_cleanup(replace(stage.deps, journal=_Racing(stage, vm, 1)), CleanupRequest(vm.name))
    assert job.plan.former_status == "ready_for_failover"


async def test_a_status_that_keeps_changing_is_somebody_else_at_work(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    with pytest.raises(Refused) as raised:
        await submit_cleanup(replace(stage.deps, journal=_Racing(stage, vm, 3)), CleanupRequest(vm.name))
    assert raised.value.code is Code.OPERATION_IN_PROGRESS
    assert await stage.rows(oma_jobs) == []


async def test_a_daemon_that_stops_takes_no_more(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    stage.deps.stopping.set()
    with pytest.raises(OmaError) as raised:
        await stage.submit(vm)
    assert raised.value.code is Code.SHUTTING_DOWN


async def test_waiting_ends_with_the_job(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    job = await stage.submit(vm)
    waiting = asyncio.create_task(wait_for_job(stage.deps, job.id, 30))
    await stage.work()
    waited = await waiting
    assert waited.ended
    assert waited.overdue is None
    assert [step.phase for step in waited.steps] == list(Phase)
    answer = cleanup_answer(waited.job, waited.steps, tuple(await stage.actions(job.id)), stage.clock.now())
    assert (answer["success"], answer["message"]) == (True, "Failed execution cleanup completed for pgtest1")
    assert [phase["name"] for phase in answer["phases"]] == [phase.value for phase in Phase]
    assert answer["replica"] == "ready"


async def test_waiting_for_a_job_that_has_ended_already_answers_at_once(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    job = await stage.clean(vm)
    assert (await wait_for_job(stage.deps, job.id, 1e9)).ended


async def test_waiting_gives_up_after_its_time_and_when_the_daemon_stops(stage: Stage) -> None:
    vm = await stage.add(STOPPED)
    job = await stage.submit(vm)
    assert not (await wait_for_job(stage.deps, job.id, 0)).ended
    waiting = asyncio.create_task(wait_for_job(stage.deps, job.id, 1e9))
    while not waiting.done():
        stage.deps.bus.close()
        await asyncio.sleep(0)
    assert not (await waiting).ended


async def test_an_unknown_job_cannot_be_waited_for(stage: Stage) -> None:
    with pytest.raises(OmaError) as raised:
        await wait_for_job(stage.deps, "no-such-job", 1)
    assert raised.value.code is Code.JOB_NOT_FOUND


async def _everything(stage: Stage) -> dict[str, list[dict[str, Any]]]:
    return {table.name: await stage.rows(table) for table in metadata.sorted_tables}
