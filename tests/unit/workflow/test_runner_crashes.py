"""A run that is stopped or killed at any instant is gone on with by the next claim, and nothing is done twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from oma.domain.actions import ActionKind
from oma.domain.errors import LeaseLost
from oma.domain.events import Event, EventType
from oma.domain.states import JobState
from oma.workflow.run import Tools
from oma.workflow.runner import run_job
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage, open_stage

KINDS = [
    ActionKind.STOP_VM,
    ActionKind.DETACH_VOLUME,
    ActionKind.REVERT_SNAPSHOT,
    ActionKind.DELETE_SNAPSHOT,
    ActionKind.ATTACH_VOLUME,
    ActionKind.DESTROY_VM,
]
LAST_EVENT = 60
"""More events than a run of two disks has."""


def _stop_at(tools: Tools, stage: Stage, kind: ActionKind, type_: EventType) -> None:
    def look(event: Event) -> None:
        if event.type is type_ and event.data.get("kind") == kind.value:
            assert isinstance(tools.stop, asyncio.Event)
            tools.stop.set()

    stage.deps.bus.on_event(look)


@pytest.mark.parametrize("type_", [EventType.ACTION_SENT, EventType.ACTION_EXECUTED])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_stop_in_mid_run_releases_the_job_and_the_next_claim_completes_it(
    stage: Stage, kind: ActionKind, type_: EventType
) -> None:
    vm = await stage.add()
    stopping = replace(stage.tools, stop=asyncio.Event())
    _stop_at(stopping, stage, kind, type_)
    job = await stage.submit(vm)
    sentence = await stage.work(stopping)
    if kind is ActionKind.DESTROY_VM and type_ is EventType.ACTION_EXECUTED:
        assert (await stage.check(job.id)).state is JobState.COMPLETED
        return
    assert sentence.startswith("Stopped at a safe point in ")
    assert (await stage.job(job.id)).state is JobState.QUEUED
    claimed = await stage.claim()
    assert claimed.recovered
    await run_job(claimed, stage.tools)
    assert (await stage.check(job.id)).state is JobState.COMPLETED


async def test_a_stop_does_not_count_as_a_failure(stage: Stage) -> None:
    vm = await stage.add()
    stop = asyncio.Event()
    stop.set()
    stopping = replace(stage.tools, stop=stop)
    job = await stage.submit(vm)
    await stage.work(stopping)
    assert (await stage.job(job.id)).state is JobState.QUEUED
    assert stage.world.orders == []
    assert await stage.status(vm) == "cleanup_required"


@pytest.mark.rule("9-invariants")
@pytest.mark.parametrize("at", range(1, LAST_EVENT, 2))
async def test_a_kill_after_any_event_leaves_nothing_undone_unknown_or_done_twice(at: int) -> None:
    """The process dies after its `at`-th event; the next claim finishes the run or parks it with an issue."""
    async with open_stage(speed=400) as stage:
        vm = await stage.add()
        job = await stage.submit(vm)
        running = asyncio.create_task(stage.work())
        seen = [0]

        def kill(event: Event) -> None:
            if event.job_id == job.id and event.type is not EventType.JOB_STARTED:
                seen[0] += 1
                if seen[0] == at:
                    running.cancel()

        stage.deps.bus.on_event(kill)
        await asyncio.wait({running})
        if (await stage.job(job.id)).state is JobState.COMPLETED:
            await stage.check(job.id)
            return
        await stage.break_off(job.id)
        await stage.work()
        again = await stage.check(job.id)
        assert again.state in {JobState.COMPLETED, JobState.PARKED}, again.error
        if again.state is JobState.PARKED:
            assert again.error is not None
            assert "was not answered" in again.error["detail"]


async def test_an_intent_that_cloudstack_never_heard_of_is_sent_by_the_next_process_as_itself(stage: Stage) -> None:
    """Under the same id it cannot run twice, also where the late call is still on its way."""
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await stage.submit(vm)
    stage.cloud.weather.gates["revertSnapshot"] = asyncio.Event()
    running = asyncio.create_task(stage.work())
    await stage.cloud.weather.until_asked("revertSnapshot")
    running.cancel()
    await asyncio.wait({running})
    stage.cloud.weather.gates.clear()
    await stage.break_off(job.id)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    (revert,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    assert (revert.attempt, stage.count("revertSnapshot")) == (1, 1)
    assert stage.world.accepted("revertSnapshot")[0].request_id == revert.id


async def test_an_intent_that_the_volume_daemon_never_heard_of_is_sent_under_its_own_id(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await stage.submit(vm)
    stage.volumes.weather.gates["detachVolume"] = asyncio.Event()
    running = asyncio.create_task(stage.work())
    await stage.volumes.weather.until_asked("detachVolume")
    running.cancel()
    await asyncio.wait({running})
    stage.volumes.weather.gates.clear()
    (begun,) = await stage.actions(job.id, ActionKind.DETACH_VOLUME)
    await stage.break_off(job.id)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert [one.id for one in await stage.actions(job.id, ActionKind.DETACH_VOLUME)] == [begun.id]


async def test_an_unsent_detach_is_not_sent_to_a_volume_that_was_moved_meanwhile(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await stage.submit(vm)
    stage.volumes.weather.gates["detachVolume"] = asyncio.Event()
    running = asyncio.create_task(stage.work())
    await stage.volumes.weather.until_asked("detachVolume")
    running.cancel()
    await asyncio.wait({running})
    stage.volumes.weather.gates.clear()
    stage.world.seed(vms=[{"id": "0f000000-0000-4000-8000-00000000000f", "name": "somebody-elses"}])
    stage.world.change_volume(vm.volume_id(0), vm_id="0f000000-0000-4000-8000-00000000000f")
    await stage.break_off(job.id)
    await stage.work()
    job = await stage.job(job.id)
    assert job.state is JobState.PARKED
    assert stage.count("detachVolume") == 0
    assert await stage.open_issues(job.id)


@pytest.mark.parametrize("command", ["detachVolume", "revertSnapshot", "deleteSnapshot", "destroyVirtualMachine"])
async def test_a_failure_that_was_journaled_but_not_parked_is_parked_by_the_next_process(
    stage: Stage, command: str
) -> None:
    """The process dies between the failed action's outcome and the park: what failed is not done again.

    Before the first revert the next process goes back instead.
    """
    times = 2 if command == "revertSnapshot" else 1
    stage.world.add_fault(FaultKind.JOB_FAIL, command, errorcode=530, errortext="agent timed out", times=times)
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work())

    def kill(event: Event) -> None:
        if event.type is EventType.ACTION_FAILED:
            running.cancel()

    stage.deps.bus.on_event(kill)
    await asyncio.wait({running})
    assert running.cancelled()
    await stage.break_off(job.id)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is (JobState.FAILED if command == "detachVolume" else JobState.PARKED)
    assert job.error is not None
    assert "agent timed out" in job.error["detail"]
    assert stage.count(command) == times


async def test_a_failed_revert_is_made_again_only_after_a_slow_one_beside_it_has_ended(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, match={"id": vm.snapshot_id(0)})
    stage.world.add_fault(FaultKind.JOB_STUCK, "revertSnapshot", delay_s=60.0, match={"id": vm.snapshot_id(1)})
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work())

    def kill(event: Event) -> None:
        if event.type is EventType.ACTION_FAILED:
            running.cancel()

    stage.deps.bus.on_event(kill)
    await asyncio.wait({running})
    await stage.break_off(job.id)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.COMPLETED
    assert [one.snapshot_id for one in stage.world.accepted("revertSnapshot")][-1] == vm.snapshot_id(0)
    attempts = {one.target.snapshot_id: one.attempt for one in await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)}
    assert attempts == {vm.snapshot_id(0): 2, vm.snapshot_id(1): 1}


async def test_whoever_has_lost_the_lease_writes_and_sends_nothing_more(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await stage.submit(vm)
    first = await stage.claim()
    await stage.break_off(job.id)
    second = await stage.claim()
    assert second.lease.fence > first.lease.fence
    with pytest.raises(LeaseLost):
        await run_job(first, stage.tools)
    assert stage.world.orders == []
    await run_job(second, stage.tools)
    assert (await stage.check(job.id)).state is JobState.COMPLETED


async def test_the_volume_daemon_is_told_the_fence_of_the_lease(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await stage.submit(vm)
    claimed = await stage.claim()
    await run_job(claimed, stage.tools)
    assert stage.volumes.fences == {vm.volume_id(0): claimed.lease.fence}
    assert (await stage.check(job.id)).state is JobState.COMPLETED
