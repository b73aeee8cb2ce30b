"""Turns: bounded, in order, and never held for ever."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from oma.domain.actions import ActionKind
from oma.domain.events import Event, EventType
from oma.domain.states import JobState
from oma.workflow.pace import Pace
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage


async def test_only_so_many_have_a_turn_at_once_and_in_the_order_of_asking():
    pace = Pace(at_once=2, longest_turn_s=60)
    begun: list[int] = []
    ends = [asyncio.Event() for _ in range(4)]

    async def run(number: int) -> None:
        async with pace.turn():
            begun.append(number)
            await ends[number].wait()

    runs = [asyncio.create_task(run(number)) for number in range(4)]
    await asyncio.sleep(0)
    assert begun == [0, 1]
    ends[1].set()
    await runs[1]
    await asyncio.sleep(0)
    assert begun == [0, 1, 2]
    for end in ends:
        end.set()
    await asyncio.gather(*runs)
    assert begun == [0, 1, 2, 3]


async def test_a_run_that_is_held_up_gives_its_place_away_and_goes_on():
    pace = Pace(at_once=1, longest_turn_s=0.01)
    held_up = asyncio.Event()

    async def run() -> None:
        async with pace.turn():
            await held_up.wait()

    slow = asyncio.create_task(run())
    await asyncio.sleep(0)
    async with pace.turn():
        assert not slow.done()
    held_up.set()
    await slow
    async with asyncio.timeout(5), pace.turn():
        pass


async def test_what_was_sent_before_a_restart_is_followed_without_a_turn(stage: Stage):
    """A thousand runs that go on at once must not wait for each other to learn how their detaches went."""
    vm = await stage.add(BrokenVm("pgtest1", [Disk()]))
    stop = asyncio.Event()

    def look(event: Event) -> None:
        if event.type is EventType.ACTION_SENT and event.data.get("kind") == ActionKind.DETACH_VOLUME.value:
            stop.set()

    stage.deps.bus.on_event(look)
    job = await stage.submit(vm)
    await stage.work(replace(stage.tools, stop=stop))
    async with asyncio.timeout(20):
        await stage.work(replace(stage.tools, pace=Pace(at_once=0)))
    assert (await stage.check(job.id)).state is JobState.COMPLETED
