"""The matrix: which point is died at in which story, and many cases beside each other in one loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from appliance.crashpoints import AFTER, listening
from tests.crash.cases import NEVER, open_scene, run_case
from tests.crash.databases import Database
from tests.crash.dying import Death, Way, reach_in_context
from tests.crash.ports import COMMITTING, bare
from tests.crash.stories import Story


@dataclass(frozen=True)
class Case:
    """Dies in `story` at the `time`-th time that it comes to `occasion`: a point, and what it is about.

    `then`: whoever goes on with it dies as well, at this occasion; in process only.
    """

    story: Story
    occasion: str
    way: Way = Way.RAISE
    time: int = 1
    then: str | None = None

    def __str__(self) -> str:
        again = f" (time {self.time})" if self.time > 1 else ""
        then = f", then at {self.then}" if self.then else ""
        return f"{self.story.name!r} at {self.occasion}{again}{then} by {self.way.value}"


RunCase = Callable[[Case, Database], Awaitable[list[str]]]


@dataclass(frozen=True)
class Census:
    """What a story reaches when nobody dies, each with how often.

    `after`: what the life reaches that goes on after a death at this occasion.
    """

    story: Story
    reached: dict[str, int]
    after: str | None = None


async def take_census(stories: Iterable[Story], databases: Sequence[Database]) -> list[Census]:
    """Lives every story to its end. Raises `AssertionError` where one does not come to it as it should."""

    async def live(case: Case, database: Database) -> list[str]:
        death = Death(NEVER)
        found = await _run(case, database, death)
        taken[case.story.name] = Census(case.story, dict(death.reached))
        return found

    taken: dict[str, Census] = {}
    wanted = list(stories)
    faults = await run_cases([Case(story, NEVER) for story in wanted], databases, live)
    assert not faults, "\n".join(faults)
    return [taken[story.name] for story in wanted]


async def take_later_census(deaths: Iterable[Case], databases: Sequence[Database]) -> list[Census]:
    """What those reach who go on after each of these deaths. Raises `AssertionError` as `take_census` does."""

    async def live(case: Case, database: Database) -> list[str]:
        later = Death(NEVER)
        found = await _run(case, database, Death(case.occasion, case.way, case.time), later)
        taken.append(Census(case.story, dict(later.reached), case.occasion))
        return found

    taken: list[Census] = []
    faults = await run_cases(list(deaths), databases, live)
    assert not faults, "\n".join(faults)
    return sorted(taken, key=lambda one: (sum(one.reached.values()), one.story.name, one.after or ""))


def choose_later(first: Sequence[Census], later: Sequence[Census]) -> list[Case]:
    """Whatever is reached only by whoever goes on after a death, and each call that such a one sends: once each."""
    known = {
        occasion
        for census in first
        for occasion in census.reached
        if not occasion.startswith(("oma.cloud.", "oma.volumes."))
    }
    cases: list[Case] = []
    for census in later:
        new = sorted(set(census.reached) - known)
        known.update(new)
        cases += [Case(census.story, census.after or "", then=one) for one in new]
    return cases


def choose_occasions(taken: Sequence[Census]) -> list[Case]:
    """Each occasion once, in the first story that comes to it."""
    known: set[str] = set()
    cases: list[Case] = []
    for census in taken:
        new = sorted(set(census.reached) - known)
        known.update(new)
        cases += [Case(census.story, one) for one in new]
    return cases


def thin_commits(cases: Iterable[Case]) -> list[Case]:
    """Leaves out what is the same again: in process, a death inside a transaction writes what one before it writes.

    Each kind of transaction is still died in once.
    """
    known: set[str] = set()
    thinned: list[Case] = []
    for case in cases:
        point = bare(case.occasion)
        if not (point.endswith(COMMITTING) and point in known):
            thinned.append(case)
        known.add(point)
    return thinned


TIMED, SURE = "renew_leases", "leases are renewed in the middle"
"""In other stories the worker renews its leases by its clock: a quick machine ends the run before that."""


def choose_points(taken: Sequence[Census]) -> list[Case]:
    """Each point once, whatever it is about, in the shortest story that is sure to come to it."""
    shortest: dict[str, Case] = {}
    for census in sorted(taken, key=lambda one: sum(one.reached.values())):
        for occasion in sorted(census.reached):
            if TIMED not in occasion or census.story.name == SURE:
                shortest.setdefault(bare(occasion), Case(census.story, occasion))
    return [shortest[point] for point in sorted(shortest)]


def choose_kinds(taken: Sequence[Census]) -> list[Case]:
    """One for each kind of action: its intent is journaled, and nothing is sent yet."""
    return [case for case in choose_occasions(taken) if bare(case.occasion) == "oma.journalstore.ActionStarted.after"]


def choose_sendings(taken: Sequence[Census]) -> list[Case]:
    """Between check and send: each intent that is journaled, and each call that is about to leave."""
    starts = ("oma.journalstore.ActionStarted.after", "oma.cloud.", "oma.volumes.")
    return [
        case
        for case in choose_occasions(taken)
        if bare(case.occasion).startswith(starts)
        and not (case.occasion.startswith(starts[1:]) and case.occasion.endswith(AFTER))
    ]


def choose_everything(taken: Sequence[Census]) -> list[Case]:
    """Each time that each story comes to each occasion."""
    return [
        Case(census.story, occasion, time=time)
        for census in taken
        for occasion, times in sorted(census.reached.items())
        for time in range(1, times + 1)
    ]


async def run_in_process(case: Case, database: Database) -> list[str]:
    deaths = [Death(case.occasion, case.way, case.time)]
    if case.then is not None:
        deaths.append(Death(case.then, case.way))
    return await _run(case, database, *deaths)


async def _run(case: Case, database: Database, *deaths: Death) -> list[str]:
    await asyncio.to_thread(database.empty)
    async with open_scene(case.story, database.url) as scene:
        return await run_case(scene, *deaths)


async def run_cases(cases: Sequence[Case], databases: Sequence[Database], run: RunCase = run_in_process) -> list[str]:
    """As many beside each other as there are databases; returns a line for every fault."""
    left = list(reversed(cases))
    faults: list[str] = []

    async def work(database: Database) -> None:
        while left:
            case = left.pop()
            try:
                found = await run(case, database)
            except Exception as error:  # noqa: BLE001 - one case that breaks says so beside the others
                found = [f"{type(error).__name__}: {error}"]
            faults.extend(f"{case}: {one}" for one in found)

    with listening(reach_in_context):
        await asyncio.gather(*(work(database) for database in databases))
    return faults
