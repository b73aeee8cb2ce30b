"""The last look before each change: what moved since the analysis is left alone, and no step is trusted blindly."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from database.tables import vm_replication_contexts
from oma.domain.actions import Action, ActionKind
from oma.domain.events import Event, EventType
from oma.domain.jobs import ClaimedJob, Job, Step
from oma.domain.states import ActionState, JobState, Phase, StepStatus, phase_seq
from oma.workflow.runner import run_job
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import NOWHERE, BrokenVm, Disk
from tests.fakes.stage import Stage

STOPPED = "Stopped"


def _error(job: Job) -> dict[str, object]:
    assert job.error is not None
    return job.error


@pytest.mark.rule("6-status")
async def test_somebody_elses_write_before_the_reset_parks_and_nothing_is_reset(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk(place=NOWHERE, mode=None)], test_vm_state=None))
    gate = stage.volumes.weather.gates["attachVolume"] = asyncio.Event()
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work())
    await stage.volumes.weather.until_asked("attachVolume")
    await stage.sql(f"UPDATE vm_replication_contexts SET current_job_id = NULL WHERE context_id = '{vm.context_id}'")
    gate.set()
    await running
    parked = await stage.check(job.id)
    assert parked.state is JobState.PARKED
    assert "nothing was reset" in str(_error(parked)["detail"])
    (context,) = await stage.rows(vm_replication_contexts, context_id=vm.context_id)
    assert context["current_status"] == "cleanup_required"
    (reset,) = await stage.actions(job.id, ActionKind.RESET_RECORDS)
    assert reset.state is ActionState.EXECUTION_FAILED


@pytest.mark.rule("7-destroy")
async def test_a_test_vm_that_holds_any_known_volume_is_not_destroyed(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    other = await stage.add(BrokenVm("other", disks=[Disk(place=vm.test_vm_id)], test_vm_state=None))
    job = await stage.submit(vm)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.PARKED
    assert f"holds the known volumes {other.volume_id(0)}; it is not destroyed" in str(_error(job)["detail"])
    assert stage.count("destroyVirtualMachine") == 0


@pytest.mark.rule("4-stopped")
async def test_a_vm_that_reports_stopped_but_runs_is_not_reverted_under(stage: Stage) -> None:
    """The test VM is started again between the detach and the revert."""
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    gate = stage.cloud.weather.gates["list_snapshots"] = asyncio.Event()
    gate.set()
    job = await stage.submit(vm)

    def start_again(event: Event) -> None:
        if event.type is EventType.ACTION_EXECUTED and event.data["kind"] == "detach_volume":
            stage.world.change_vm(vm.test_vm_id, state="Running")

    stage.deps.bus.on_event(start_again)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.FAILED
    assert "nothing is reverted under a VM that may write" in str(_error(job)["detail"])


@pytest.mark.rule("5-again")
async def test_a_snapshot_that_moves_to_another_volume_is_not_reverted_to(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    other = await stage.add(BrokenVm("other", test_vm_state=STOPPED))

    def move(event: Event) -> None:
        if event.type is EventType.ACTION_EXECUTED and event.data["kind"] == "detach_volume":
            stage.world.change_snapshot(vm.snapshot_id(0), volume_id=other.volume_id(0))

    job = await stage.submit(vm)
    stage.deps.bus.on_event(move)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.FAILED
    assert stage.count("revertSnapshot") == 0


@pytest.mark.rule("6-asks-again")
async def test_a_replication_that_begins_meanwhile_stops_the_revert(stage: Stage) -> None:
    """Section 6: `replication_jobs` is asked again before the first revert."""
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    gate = stage.volumes.weather.gates["detachVolume"] = asyncio.Event()
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work())
    await stage.volumes.weather.until_asked("detachVolume")
    await stage.sql(
        "INSERT INTO replication_jobs (id, vm_context_id, status, started_at) VALUES "
        f"('new', '{vm.context_id}', 'running', '{stage.clock.now():%Y-%m-%d %H:%M:%S.%f}')"
    )
    gate.set()
    await running
    job = await stage.check(job.id)
    assert job.state is JobState.FAILED
    assert stage.count("revertSnapshot") == 0


async def test_a_snapshot_that_moved_after_the_revert_is_not_deleted(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    other = await stage.add(BrokenVm("other", test_vm_state=STOPPED))

    def move(event: Event) -> None:
        if event.type is EventType.ACTION_EXECUTED and event.data["kind"] == "revert_snapshot":
            stage.world.change_snapshot(vm.snapshot_id(0), volume_id=other.volume_id(0))

    job = await stage.submit(vm)
    stage.deps.bus.on_event(move)
    await stage.work()
    parked = await stage.job(job.id)
    assert parked.state is JobState.PARKED
    assert "it is not ours to delete" in str(_error(parked)["detail"])
    assert stage.count("deleteSnapshot") == 0


async def test_nothing_is_reset_while_a_volume_is_not_home(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))

    def take_away(event: Event) -> None:
        if event.type is EventType.STEP_COMPLETED and event.data["phase"] == Phase.REATTACH.value:
            stage.world.change_volume(vm.volume_id(0), vm_id=None)

    job = await stage.submit(vm)
    stage.deps.bus.on_event(take_away)
    await stage.work()
    parked = await stage.check(job.id)
    assert parked.state is JobState.PARKED
    assert "is not home" in str(_error(parked)["detail"])
    assert stage.count("destroyVirtualMachine") == 0


async def _done(stage: Stage, vm: BrokenVm, *phases: Phase) -> ClaimedJob:
    """The claimed job, with a journal that says of these phases that they are over, and of no revert that it is."""
    job = await stage.submit(vm)
    claimed = await stage.claim()
    steps = tuple(Step(phase, phase_seq(phase), StepStatus.COMPLETED) for phase in phases)
    assert claimed.job.id == job.id
    return replace(claimed, steps=steps)


@pytest.mark.rule("5-proof")
async def test_a_revert_that_was_only_skipped_is_no_proof_to_delete_by(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk(place=NOWHERE, mode=None)], test_vm_state=None))
    claimed = await _done(stage, vm, Phase.ANALYZE, Phase.DETACH)
    (planned,) = [one for one in claimed.job.plan.actions if one.kind is ActionKind.REVERT_SNAPSHOT]
    skipped = Action(
        "skipped", claimed.job.id, planned.phase, 1, planned.kind, planned.target, ActionState.SKIPPED, evidence={}
    )
    await run_job(replace(claimed, actions=(skipped,)), stage.tools)
    job = await stage.job(claimed.job.id)
    assert stage.count("deleteSnapshot") == stage.count("attachVolume") == 0
    assert job.state is JobState.FAILED, "nothing was begun, so nothing is uncertain"


async def test_nothing_is_attached_before_its_revert_is_proven_whatever_the_steps_say(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk(place=NOWHERE, mode=None)], test_vm_state=None))
    claimed = await _done(stage, vm, Phase.ANALYZE, Phase.DETACH, Phase.SNAPSHOTS)
    await run_job(claimed, stage.tools)
    assert stage.world.orders == []


async def test_after_a_failure_of_an_earlier_process_nothing_new_is_begun(stage: Stage) -> None:
    one_by_one = replace(stage.tools, figures=replace(stage.tools.figures, parallel=1))
    stage.world.add_fault(FaultKind.JOB_FAIL, "detachVolume", errorcode=530)
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk(), Disk()], test_vm_state=STOPPED))
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work(one_by_one))

    def kill(event: Event) -> None:
        if event.type is EventType.ACTION_FAILED:
            running.cancel()

    stage.deps.bus.on_event(kill)
    await asyncio.wait({running})
    await stage.break_off(job.id)
    await stage.work(one_by_one)
    assert (await stage.check(job.id)).state is JobState.FAILED
    assert stage.count("detachVolume") == 1
