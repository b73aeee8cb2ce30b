from __future__ import annotations

import asyncio
import signal

import pytest

from oma.domain.errors import Code, OmaError
from oma.runtime.late import Late
from oma.runtime.loops import Loop, Pulse
from oma.runtime.signals import StopSignals
from tests.unit.runtime.fakes import FakeClock


class Turns:
    def __init__(self) -> None:
        self.count = 0
        self.turned = asyncio.Event()
        self.error: Exception | None = None

    async def once(self) -> str | None:
        self.count += 1
        self.turned.set()
        if self.error is not None:
            raise self.error
        return "Turned."

    async def next(self) -> None:
        await asyncio.wait_for(self.turned.wait(), 5)
        self.turned.clear()


@pytest.mark.parametrize("error", [None, OmaError(Code.DATABASE_UNAVAILABLE, "away"), KeyError("unforeseen")])
async def test_a_loop_turns_when_woken_and_survives_its_turns(error: Exception | None):
    turns, stop, wake = Turns(), asyncio.Event(), asyncio.Event()
    turns.error = error
    loop = Loop("l", turns.once, FakeClock(), interval_s=3600, wake=wake)
    task = asyncio.create_task(loop.run(stop))
    await turns.next()
    await asyncio.wait_for(loop.first_turn.wait(), 5)
    wake.set()
    await turns.next()
    stop.set()
    await asyncio.wait_for(task, 5)
    assert turns.count == 2


async def test_a_wake_during_a_turn_is_not_lost():
    wake, stop, gate = asyncio.Event(), asyncio.Event(), asyncio.Event()
    began: asyncio.Queue[None] = asyncio.Queue()

    async def once() -> None:
        began.put_nowait(None)
        await gate.wait()

    task = asyncio.create_task(Loop("l", once, FakeClock(), interval_s=3600, wake=wake).run(stop))
    await asyncio.wait_for(began.get(), 5)
    wake.set()
    gate.set()
    await asyncio.wait_for(began.get(), 5)
    stop.set()
    await asyncio.wait_for(task, 5)


async def test_a_loop_turns_by_its_interval():
    turns, stop = Turns(), asyncio.Event()
    task = asyncio.create_task(Loop("l", turns.once, FakeClock(), interval_s=0.001).run(stop))
    for _ in range(3):
        await turns.next()
    stop.set()
    await asyncio.wait_for(task, 5)


async def test_the_watchdog_is_told_only_while_every_loop_turns():
    clock, pings = FakeClock(), []
    hangs = asyncio.Event()

    async def hang() -> None:
        await hangs.wait()

    good = Loop("good", Turns().once, clock, interval_s=3600, patience_s=100_000)
    bad = Loop("bad", hang, clock, interval_s=10, patience_s=60)
    pulse = Pulse((good, bad), clock, lambda: pings.append(clock.seconds))
    stop = asyncio.Event()
    tasks = [asyncio.create_task(loop.run(stop)) for loop in (good, bad)]
    await good.first_turn.wait()
    clock.seconds = 60
    assert await pulse.beat() is None
    clock.seconds = 71
    assert await pulse.beat() == "The watchdog is not told: bad made no progress."
    assert pings == [60]
    hangs.set()
    await asyncio.wait_for(bad.first_turn.wait(), 5)
    await asyncio.sleep(0)
    assert await pulse.beat() is None
    stop.set()
    await asyncio.gather(*tasks)


async def test_a_late_port_raises_when_it_is_called_not_when_it_is_named():
    present: list[Turns] = []

    def current() -> Turns:
        if not present:
            raise OmaError(Code.DATABASE_UNAVAILABLE, "not open")
        return present[0]

    port = Late(current)
    method = port.once
    with pytest.raises(OmaError, match="not open"):
        await method()
    present.append(Turns())
    assert await method() == "Turned."


async def test_the_second_signal_is_immediate():
    exits: list[int] = []
    signals = StopSignals(exits.append)
    signals.receive(signal.SIGTERM)
    assert signals.asked.is_set()
    assert exits == []
    signals.receive(signal.SIGINT)
    assert exits == [130]
