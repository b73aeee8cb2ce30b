"""Who waits while a wave is under way goes with the next, together; nobody is lost."""

from __future__ import annotations

import asyncio

import pytest

from oma.workflow.waves import Waves


class Guest:
    """One who enters, and stays until told to leave."""

    def __init__(self, waves: Waves) -> None:
        self.inside = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(waves))

    async def _visit(self, waves: Waves) -> None:
        async with waves:
            self.inside.set()
            await self.leave.wait()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def inside(guests: list[Guest]) -> int:
    return sum(guest.inside.is_set() for guest in guests)


async def test_those_who_come_at_once_go_together_up_to_the_size() -> None:
    waves = Waves(size=3, lanes=1)
    guests = [Guest(waves) for _ in range(5)]
    await settle()
    assert inside(guests) == 3
    for guest in guests[:2]:
        guest.leave.set()
    await settle()
    assert inside(guests) == 3, "the next wave waits for the last of the first"
    guests[2].leave.set()
    await settle()
    assert inside(guests) == 5
    for guest in guests:
        guest.leave.set()
    await asyncio.gather(*(guest.task for guest in guests))


async def test_a_second_lane_goes_on_while_the_first_hangs() -> None:
    waves = Waves(size=1, lanes=2)
    guests = [Guest(waves) for _ in range(3)]
    await settle()
    assert inside(guests) == 2
    guests[1].leave.set()
    await settle()
    assert guests[2].inside.is_set()
    for guest in guests:
        guest.leave.set()
    await asyncio.gather(*(guest.task for guest in guests))


@pytest.mark.parametrize("when", ["waiting", "chosen", "inside"])
async def test_one_who_is_cancelled_leaves_the_place_to_others(when: str) -> None:
    waves = Waves(size=1, lanes=1)
    first, second = Guest(waves), Guest(waves)
    await settle()
    victim = {"waiting": second, "chosen": second, "inside": first}[when]
    if when == "chosen":
        first.leave.set()
        await first.task
    victim.task.cancel()
    await settle()
    third = Guest(waves)
    for guest in (first, second, third):
        guest.leave.set()
    results = await asyncio.gather(first.task, second.task, third.task, return_exceptions=True)
    assert sum(isinstance(one, asyncio.CancelledError) for one in results) == 1
    assert third.inside.is_set()


async def test_a_failure_inside_opens_the_next_wave() -> None:
    waves = Waves(size=1, lanes=1)

    async def fail() -> None:
        async with waves:
            raise LookupError

    failing = asyncio.create_task(fail())
    guest = Guest(waves)
    guest.leave.set()
    await guest.task
    with pytest.raises(LookupError):
        await failing
