"""Whole runs that end well."""

from __future__ import annotations

import asyncio

import pytest

from database.tables import failover_jobs, job_steps, job_tracking, log_events, vm_replication_contexts
from oma.domain.actions import ActionKind
from oma.domain.states import ActionState, JobState, Phase, StepStatus
from oma.domain.verdict import SOURCE_OFF
from tests.fakes.scenario import NOWHERE, OMA, BrokenVm, Disk
from tests.fakes.stage import Stage

AT_HOME = Disk(place=OMA, snapshot=False, dirty=False, mode="oma")


async def test_volumes_on_a_running_test_vm_come_home(stage: Stage) -> None:
    vm = await stage.add()
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    assert job.result == {
        "message": "Failed execution cleanup completed for pgtest1",
        "replica": "ready",
        "next": "The replica is good; nothing has to be done before the next failover.",
    }
    commands = stage.commands()
    assert commands[0] == ("stopVirtualMachine", vm.test_vm_id)
    assert sorted(commands[1:3]) == sorted(("detachVolume", one) for one in vm.volume_ids)
    assert sorted(commands[3:5]) == sorted(("revertSnapshot", one) for one in vm.snapshot_ids)
    assert sorted(commands[5:7]) == sorted(("deleteSnapshot", one) for one in vm.snapshot_ids)
    assert commands[7:9] == [("attachVolume", one) for one in vm.volume_ids]
    assert commands[9:] == [("destroyVirtualMachine", vm.test_vm_id)]


async def test_a_run_is_journaled_as_five_steps_with_lines_and_a_job_of_its_vm(stage: Stage) -> None:
    vm = await stage.add()
    job = await stage.clean(vm)
    steps = await stage.rows(job_steps, job_id=job.id)
    assert [(row["seq"], row["name"], row["status"]) for row in steps] == [
        (seq, phase.value, "completed") for seq, phase in enumerate(Phase, 1)
    ]
    (row,) = await stage.rows(job_tracking, id=job.id)
    assert (row["status"], row["operation"], row["context_id"], row["percent_complete"]) == (
        "completed",
        "failed-execution-cleanup",
        vm.context_id,
        100,
    )
    lines = [row["message"] for row in await stage.rows(log_events, job_id=job.id)]
    assert "Reverted 2 volumes, each proven by its own job; deleted 2 snapshots; cleared the tracking." in lines
    actions = await stage.actions(job.id)
    assert all(action.state is ActionState.EXECUTED for action in actions)
    assert all(action.remote_id == action.id for action in actions if action.kind is not ActionKind.RESET_RECORDS)


async def test_the_reset_ends_the_failover_and_its_own_joblog_rows(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(running_steps=("vm-startup-and-validation",), test_vm_state="Stopped"))
    await stage.clean(vm)
    (failover,) = await stage.rows(failover_jobs, vm_context_id=vm.context_id)
    (log,) = await stage.rows(job_tracking, id=vm.failover_job_id)
    (context,) = await stage.rows(vm_replication_contexts, context_id=vm.context_id)
    assert (failover["status"], log["status"], context["current_job_id"]) == ("failed", "failed", None)
    assert context["last_operation_summary"]["replica"] == "ready"
    assert {row["status"] for row in await stage.rows(job_steps, job_id=vm.failover_job_id)} == {"completed", "failed"}


async def test_mixed_states_are_put_right_each_by_what_it_needs(stage: Stage) -> None:
    disks = [Disk(), Disk(place=NOWHERE, mode=None), Disk(place=OMA, mode="failover")]
    vm = await stage.add(BrokenVm(disks=disks, test_vm_state="Stopped"))
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    detached = [volume for command, volume in stage.commands() if command == "detachVolume"]
    assert sorted(detached) == sorted([vm.volume_id(0), vm.volume_id(2)])
    attached = [volume for command, volume in stage.commands() if command == "attachVolume"]
    assert attached == vm.volume_ids


async def test_everything_detached_already_needs_no_detach(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk(place=NOWHERE, mode=None)] * 2, test_vm_state=None))
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    assert stage.count("detachVolume") == 0
    steps = {step.phase: step for step in await stage.deps.jobs.list_steps(job.id)}
    assert steps[Phase.DETACH].status is StepStatus.SKIPPED


@pytest.mark.rule("4-431")
async def test_a_detach_answered_431_because_it_is_detached_is_recorded_and_goes_on(stage: Stage) -> None:
    """Section 4: no `virtualmachineid` and no pending `jobid` → detached, recorded, go on."""
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    gate = stage.volumes.weather.gates["detachVolume"] = asyncio.Event()
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work())
    await stage.volumes.weather.until_asked("detachVolume")
    stage.world.change_volume(vm.volume_id(0), vm_id=None)
    gate.set()
    await running
    job = await stage.job(job.id)
    assert job.state is JobState.COMPLETED, job.error
    (detach,) = await stage.actions(job.id, ActionKind.DETACH_VOLUME)
    assert detach.state is ActionState.EXECUTED
    assert detach.evidence["upstream"] == "431: The specified volume is not attached to a VM."
    assert stage.world.content[vm.volume_id(0)] == vm.clean_content(0)


async def test_a_volume_that_nothing_wrote_to_is_left_where_it_is(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[AT_HOME, AT_HOME], steps=(), test_vm_state=None, joblog_status="failed"))
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    assert stage.commands() == []


@pytest.mark.rule("7-destroy")
async def test_a_leftover_test_vm_that_holds_nothing_is_destroyed_and_never_expunged(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[AT_HOME], steps=(), test_vm_state="Running", joblog_status="failed"))
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    assert [command for command, _ in stage.commands()] == ["stopVirtualMachine", "destroyVirtualMachine"]


async def test_a_leftover_test_vm_in_state_error_is_left_and_said(stage: Stage) -> None:
    """A VM that could not be built stays in state Error for ever; it is no transition to wait for."""
    vm = await stage.add(BrokenVm(disks=[AT_HOME], steps=(), test_vm_state="Error", joblog_status="failed"))
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    assert job.result is not None
    assert f"The test VM {vm.name}-test is Error" in job.result["next"]
    assert stage.count("destroyVirtualMachine") == 0


async def test_many_disks_go_home_in_disk_order(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk() for _ in range(8)], test_vm_state="Stopped"))
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    assert [volume for command, volume in stage.commands() if command == "attachVolume"] == vm.volume_ids


@pytest.mark.rule("2-source-off")
async def test_the_answer_says_first_that_the_source_was_powered_off(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(steps=("source-vm-power-off", "vm-creation")))
    job = await stage.clean(vm)
    assert job.result is not None
    assert job.result["next"].startswith(SOURCE_OFF)


async def test_two_vms_are_cleaned_beside_each_other(stage: Stage) -> None:
    first, second = await stage.add(BrokenVm("one")), await stage.add(BrokenVm("two"))
    jobs = [await stage.submit(first), await stage.submit(second)]
    await asyncio.gather(stage.work(), stage.work())
    assert [(await stage.check(job.id)).state for job in jobs] == [JobState.COMPLETED] * 2
