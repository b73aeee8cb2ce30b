"""One question for many askers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from oma.workflow.sweep import BATCH, Shared, Sweep


class Look:
    """Counts the questions; each waits for its turn where there is a gate."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.begun = asyncio.Event()

    async def __call__(self, ids: Sequence[str]) -> Sequence[str]:
        self.asked.append(list(ids))
        self.begun.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [one for one in ids if one != "gone"]


async def test_what_is_asked_at_the_same_time_is_asked_together() -> None:
    look = Look()
    sweep = Sweep[str](look, str)
    answers = await asyncio.gather(sweep.get(["b", "a"]), sweep.get(["c", "gone", "a"]))
    assert look.asked == [["a", "b", "c", "gone"]]
    assert list(answers) == [["b", "a"], ["c", "a"]]


async def test_nothing_asked_asks_nobody() -> None:
    look = Look()
    assert await Sweep[str](look, str).get([]) == []
    assert look.asked == []


async def test_who_comes_during_a_look_gets_one_that_began_afterwards() -> None:
    look = Look()
    sweep = Sweep[str](look, str)
    look.gate.clear()
    first = asyncio.create_task(sweep.get(["a"]))
    await look.begun.wait()
    second = asyncio.create_task(sweep.get(["a"]))
    await asyncio.sleep(0)
    look.gate.set()
    assert list(await asyncio.gather(first, second)) == [["a"], ["a"]]
    assert look.asked == [["a"], ["a"]]


async def test_a_failed_look_fails_its_askers_only() -> None:
    look = Look()
    sweep = Sweep[str](look, str)
    look.error = RuntimeError("cut")
    results = await asyncio.gather(sweep.get(["a"]), sweep.get(["b"]), return_exceptions=True)
    assert [str(one) for one in results] == ["cut", "cut"]
    look.error = None
    assert await sweep.get(["a"]) == ["a"]


async def test_an_asker_that_gives_up_does_not_take_the_others_with_it() -> None:
    look = Look()
    sweep = Sweep[str](look, str)
    look.gate.clear()
    first, second = asyncio.create_task(sweep.get(["a"])), asyncio.create_task(sweep.get(["b"]))
    await look.begun.wait()
    first.cancel()
    look.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await second == ["b"]


async def test_a_question_never_holds_more_ids_than_a_request_line_takes() -> None:
    look = Look()
    ids = [f"{number:04d}" for number in range(BATCH + 1)]
    assert await Sweep[str](look, str).get(ids) == ids
    assert [len(asked) for asked in look.asked] == [BATCH, 1]


async def test_whole_answers_are_shared_by_name_and_one_that_fails_fails_its_own_askers_only() -> None:
    asked: list[str] = []

    async def look(name: str) -> str:
        asked.append(name)
        await asyncio.sleep(0)
        if name == "bad":
            raise RuntimeError(name)
        return f"what hangs on {name}"

    shared = Shared[str](look)
    results = await asyncio.gather(*(shared.get(one) for one in ("oma", "bad", "oma", "vm")), return_exceptions=True)
    assert [str(one) for one in results] == ["what hangs on oma", "bad", "what hangs on oma", "what hangs on vm"]
    assert sorted(asked) == ["bad", "oma", "vm"]
    assert await shared.get("oma") == "what hangs on oma"
    assert asked.count("oma") == 2
