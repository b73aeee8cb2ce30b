"""A run that parks at its reset, because somebody else wrote meanwhile, has a word that leads on."""

from __future__ import annotations

import pytest

from database.tables import vm_disks, vm_replication_contexts
from oma.domain.actions import ActionKind
from oma.domain.errors import Code, OmaError
from oma.domain.events import EventType
from oma.domain.jobs import Job
from oma.domain.resolving import Resolution
from oma.domain.states import ActionState, JobState, Phase
from oma.service.control import cancel_job
from oma.workflow import asking_again
from oma.workflow.phases import reset
from oma.workflow.run import Run
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import Stage
from tests.unit.workflow.test_asking_again import begin_replication, error_of, go_on, run_until
from tests.unit.workflow.test_compensation import refuse_detach
from tests.unit.workflow.test_giving_up import resolved

pytestmark = pytest.mark.rule("6-asks-again")


async def write_context(stage: Stage, vm: BrokenVm, change: str) -> None:
    await stage.sql(f"UPDATE vm_replication_contexts SET {change} WHERE context_id = '{vm.context_id}'")


async def end_replication(stage: Stage) -> None:
    at = f"'{stage.clock.now():%Y-%m-%d %H:%M:%S.%f}'"
    await stage.sql(
        f"UPDATE replication_jobs SET status = 'completed', completed_at = {at}, updated_at = {at} "
        "WHERE id = 'repl-new'"
    )


async def parked_by_a_replication(stage: Stage, vm: BrokenVm) -> Job:
    """It begins between the disks' way home and the reset, which every revert has been proven before."""
    job, running, gate = await run_until(stage, vm, "attachVolume")
    await begin_replication(stage, vm)
    job = await go_on(stage, job, running, gate)
    assert job.state is JobState.PARKED
    (issue,) = await stage.open_issues(job.id)
    assert issue["kind"] == Phase.RESET.value
    assert any("say RESYNC" in step for step in issue["guidance"])
    assert any("APPLIED|ROLLED_BACK|RESYNC" in step for step in issue["guidance"])
    return job


async def test_disks_that_somebody_wrote_to_after_their_revert_are_copied_whole(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await parked_by_a_replication(stage, vm)
    await end_replication(stage)
    await resolved(stage, job, Resolution.RESYNC)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.COMPLETED, job.error
    assert await stage.status(vm) == "failed"
    assert {row["disk_change_id"] for row in await stage.rows(vm_disks, vm_context_id=vm.context_id)} == {""}
    assert job.result is not None
    assert job.result["replica"] == "resync_required"
    reverts = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    assert {one.state for one in reverts} == {ActionState.SKIPPED}


async def test_nothing_is_reset_under_a_replication_that_still_runs_whatever_is_said(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await parked_by_a_replication(stage, vm)
    await resolved(stage, job, Resolution.RESYNC)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.PARKED
    assert "was touched at" in error_of(job)
    await end_replication(stage)
    await resolved(stage, job, Resolution.ROLLED_BACK)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED


async def test_either_other_word_gives_up_no_revert(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await parked_by_a_replication(stage, vm)
    await end_replication(stage)
    await resolved(stage, job, Resolution.APPLIED)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.PARKED
    await resolved(stage, job, Resolution.RESYNC)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED


async def parked_by_a_writer(stage: Stage, vm: BrokenVm, change: str) -> Job:
    job, running, gate = await run_until(stage, vm, "attachVolume")
    await write_context(stage, vm, change)
    gate.set()
    await running
    job = await stage.job(job.id)
    assert job.state is JobState.PARKED
    assert "Somebody else changed the records" in error_of(job)
    return job


async def said_again(stage: Stage, job: Job) -> Job:
    await resolved(stage, job, Resolution.ROLLED_BACK)
    await stage.work()
    return await stage.job(job.id)


@pytest.mark.parametrize("change", ["current_job_id = NULL", "current_status = 'ready_for_failover'"])
async def test_a_person_may_take_over_what_somebody_else_wrote_before_the_reset(stage: Stage, change: str) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await said_again(stage, await parked_by_a_writer(stage, vm, change))
    assert job.state is JobState.COMPLETED, job.error
    await stage.check(job.id)
    (row,) = await stage.rows(vm_replication_contexts, context_id=vm.context_id)
    assert (row["current_status"], row["current_job_id"]) == ("ready_for_failover", None)


async def test_what_was_put_right_meanwhile_needs_no_second_word(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await parked_by_a_writer(stage, vm, "current_status = 'ready_for_failover'")
    await write_context(stage, vm, "current_status = 'cleanup_required'")
    assert (await said_again(stage, job)).state is JobState.COMPLETED
    await stage.check(job.id)


async def test_a_word_takes_over_what_its_issue_shows_and_nothing_newer(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await parked_by_a_writer(stage, vm, "current_status = 'ready_for_failover'")
    (issue,) = await stage.open_issues(job.id)
    assert issue["evidence"]["found"]["current_status"] == "ready_for_failover"
    assert issue["evidence"]["found"]["current_job_id"] == job.plan.former_job_id
    await write_context(stage, vm, "current_job_id = NULL")
    job = await said_again(stage, job)
    assert job.state is JobState.PARKED
    (issue,) = await stage.open_issues(job.id)
    assert issue["evidence"]["found"] == {"current_status": "ready_for_failover", "current_job_id": None}
    assert (await said_again(stage, job)).state is JobState.COMPLETED
    await stage.check(job.id)


async def test_a_replication_that_begins_after_the_last_look_is_not_written_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await parked_by_a_writer(stage, vm, "current_status = 'ready_for_failover'")
    look = asking_again.refuse_reset

    async def look_then_replicate(run: Run) -> None:
        await look(run)
        await begin_replication(stage, vm)
        await write_context(stage, vm, "current_status = 'replicating', current_job_id = 'repl-new'")

    monkeypatch.setattr(reset, "refuse_reset", look_then_replicate)
    assert (await said_again(stage, job)).state is JobState.PARKED
    (row,) = await stage.rows(vm_replication_contexts, context_id=vm.context_id)
    assert (row["current_status"], row["current_job_id"]) == ("replicating", "repl-new")


@pytest.mark.parametrize("status", ["failed_over_test", "replicating"])
async def test_what_somebody_else_does_with_the_vm_is_never_written_over(stage: Stage, status: str) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await parked_by_a_writer(stage, vm, f"current_status = '{status}'")
    for _ in range(2):
        job = await said_again(stage, job)
        assert job.state is JobState.PARKED
        assert "is never written over" in error_of(job)
    assert await stage.status(vm) == status
    await write_context(stage, vm, "current_status = 'ready_for_failover'")
    job = await said_again(stage, job)
    assert job.state is JobState.PARKED, "its issue has not shown that yet"
    assert (await said_again(stage, job)).state is JobState.COMPLETED
    await stage.check(job.id)


async def test_a_resync_at_the_reset_is_offered_once(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await parked_by_a_replication(stage, vm)
    await resolved(stage, job, Resolution.RESYNC)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    with pytest.raises(OmaError) as raised:
        await resolved(stage, job, Resolution.RESYNC)
    assert raised.value.code is Code.RESOLUTION_CONTRADICTED


async def test_a_status_that_somebody_else_set_on_the_way_back_is_left_after_a_word(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    refuse_detach(stage, vm, 0)
    job, running, gate = await run_until(stage, vm, "attachVolume")
    assert any(one.type is EventType.UNDOING_BEGUN for one in stage.events)
    await write_context(stage, vm, "current_status = 'replicating'")
    gate.set()
    await running
    job = await stage.job(job.id)
    assert job.state is JobState.PARKED
    assert "set the status of pgtest1 to replicating" in error_of(job)
    await cancel_job(stage.deps, job.id, "That is right.", actor="eva")
    await stage.work()
    assert (await stage.job(job.id)).state is JobState.FAILED
    assert await stage.status(vm) == "replicating"
