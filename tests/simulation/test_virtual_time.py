"""Virtual time passes only while everybody waits; a dead process does nothing more, a stopped one goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.simulation.crashes import Crashes
from tests.simulation.virtual_time import Life, NeverEnds, VirtualClock, context_of, run_virtual


def _begin(life: Life, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, context=context_of(life))


def test_an_hour_of_waiting_takes_no_time_and_is_an_hour_on_every_clock() -> None:
    async def main() -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        before = clock.now()
        await asyncio.gather(asyncio.sleep(3600.0), asyncio.sleep(1.0))
        assert (clock.now() - before).total_seconds() == pytest.approx(3600.0)

    run_virtual(main)


def test_what_is_due_earlier_happens_earlier() -> None:
    seen: list[float] = []

    async def note(after_s: float) -> None:
        await asyncio.sleep(after_s)
        seen.append(after_s)

    async def main() -> None:
        await asyncio.gather(*(note(after_s) for after_s in (5.0, 1.0, 3.0)))

    run_virtual(main)
    assert seen == [1.0, 3.0, 5.0]


def test_waiting_for_what_nobody_will_do_is_told() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(NeverEnds):
        run_virtual(main)


@pytest.mark.parametrize("step", range(1, 8))
def test_a_process_that_dies_before_any_step_does_nothing_more_not_even_what_it_would_at_its_end(step: int) -> None:
    done: list[int] = []
    at_the_end: list[bool] = []

    async def work() -> None:
        try:
            for number in range(10):
                await asyncio.sleep(1.0)
                done.append(number)
        finally:
            at_the_end.append(asyncio.get_running_loop().time() < 50.0)

    async def main() -> None:
        life = Life("daemon")
        life.die_at = step
        _begin(life, work())
        await asyncio.sleep(50.0)
        assert life.dead
        assert len(done) < 10
        assert at_the_end == []

    run_virtual(main)


def test_a_stopped_process_goes_on_where_it_was_and_finds_the_time_passed() -> None:
    seen: list[float] = []

    async def work() -> None:
        for _ in range(3):
            await asyncio.sleep(1.0)
            seen.append(round(asyncio.get_running_loop().time(), 3))

    async def main() -> None:
        life = Life("daemon")
        _begin(life, work())
        await asyncio.sleep(1.5)
        life.freeze()
        await asyncio.sleep(100.0)
        assert seen == [1.0]
        life.thaw()
        await asyncio.sleep(5.0)

    run_virtual(main)
    assert seen == [1.0, 101.5, 102.5]


def test_whoever_is_connected_to_a_dying_process_is_told() -> None:
    async def main() -> None:
        life = Life("daemon")
        cut = asyncio.Event()
        life.deaths.append(cut.set)
        life.kill()
        async with asyncio.timeout(1.0):
            await cut.wait()

    run_virtual(main)


def test_what_a_process_was_to_die_of_waits_for_its_next_life_and_counts_once_it_strikes() -> None:
    async def work() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)

    async def main() -> None:
        struck: list[str] = []
        crashes = Crashes(struck.append)
        first = Life("daemon")
        crashes.begin(first)
        crashes.add(first, 50)
        crashes.add(first, 7)
        _begin(first, work())
        await asyncio.sleep(0)
        first.kill()
        crashes.end(first)
        assert struck == []
        for steps in (50, 7):
            life = Life("daemon")
            crashes.begin(life)
            _begin(life, work())
            for _ in range(steps + 2):
                await asyncio.sleep(0)
            assert life.dead
            crashes.end(life)
        assert struck == ["daemon", "daemon"]

    run_virtual(main)
