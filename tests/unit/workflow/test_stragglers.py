"""Nothing attaches a volume while an earlier operation on it may still take it away."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from oma.domain.events import Event, EventType
from oma.domain.states import JobState
from tests.fakes.scenario import NOWHERE, BrokenVm, Disk
from tests.fakes.stage import FIGURES, Stage, open_stage
from tests.unit.workflow.test_compensation import refuse_detach

pytestmark = pytest.mark.rule("6-own-ids")
FREE = Disk(place=NOWHERE, mode=None)
STRAGGLER = "57a66000-0000-4000-8000-000000000001"


async def straggle(stage: Stage, volume_id: str) -> asyncio.Event:
    """A detach that somebody gave up on is still under way, until the event."""
    end = stage.volumes.late[volume_id] = asyncio.Event()
    fence = stage.volumes.fences.get(volume_id, 0)
    await stage.volumes.submit_detach(volume_id, request_id=STRAGGLER, fence=fence)
    await asyncio.sleep(0)
    return end


async def test_an_attach_waits_for_the_end_of_an_earlier_detach(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[FREE], test_vm_state="Stopped"))
    end = await straggle(stage, vm.volume_id(0))
    waits = asyncio.Event()

    def look(event: Event) -> None:
        if event.type is EventType.NOTED and event.data.get("volume_id") == vm.volume_id(0):
            waits.set()

    stage.deps.bus.on_event(look)
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work())
    await waits.wait()
    assert stage.count("attachVolume") == 0
    end.set()
    await running
    assert (await stage.job(job.id)).state is JobState.COMPLETED
    assert stage.world.holder_of(vm.volume_id(0)) == stage.world.oma_vm_id
    last = [order.command for order in stage.world.orders if order.volume_id == vm.volume_id(0)][-2:]
    assert last == ["detachVolume", "attachVolume"]


async def test_one_that_never_ends_parks_the_run_with_nothing_attached() -> None:
    async with open_stage(figures=replace(FIGURES, busy_wait_s=20.0)) as stage:
        vm = await stage.add(BrokenVm(disks=[FREE], test_vm_state="Stopped"))
        await straggle(stage, vm.volume_id(0))
        job = await stage.submit(vm)
        await stage.work()
        parked = await stage.job(job.id)
        assert parked.state is JobState.PARKED
        assert stage.count("attachVolume") == 0
        (issue,) = await stage.open_issues(job.id)
        assert STRAGGLER in issue["title"]


async def test_a_run_that_goes_back_attaches_nothing_under_one_and_brings_the_others_home() -> None:
    async with open_stage(figures=replace(FIGURES, busy_wait_s=20.0)) as stage:
        vm = await stage.add(BrokenVm(disks=[Disk(), Disk(), Disk()], test_vm_state="Stopped"))
        refuse_detach(stage, vm, 0)
        begun: list[asyncio.Task[object]] = []

        def look(event: Event) -> None:
            if event.type is EventType.UNDOING_BEGUN:
                begun.append(asyncio.create_task(straggle(stage, vm.volume_id(1))))

        stage.deps.bus.on_event(look)
        job = await stage.clean(vm)
        await asyncio.gather(*begun)
        assert job.state is JobState.PARKED
        assert stage.world.holder_of(vm.volume_id(1)) is None
        assert stage.world.holder_of(vm.volume_id(2)) == stage.world.oma_vm_id
        (issue,) = await stage.open_issues(job.id)
        assert STRAGGLER in issue["title"]
