"""One round: VMs are seeded, their clean-ups asked for, shocks strike; then everything heals, and all is judged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from oma.demo.judging import find_rest_violations, find_violations
from oma.demo.ledger import last_call
from oma.demo.story import SeededVm
from oma.domain.states import JobState
from tests.chaos.operator import Person
from tests.chaos.place import Place
from tests.chaos.shocks import Missed, Shock, choose_shocks
from tests.chaos.stories import make_story

MOST_VMS: Final = 3
SPREAD_S: Final = 1.5
"""Within which time the shocks begin."""
REST_S: Final = 75.0
TURNS: Final = 6
"""How often the person comes back to a VM before it counts as one that nobody can settle."""


@dataclass
class Round:
    """What happened, and what must not have been. `ended`: how the runs stood when all was at rest first.

    `shocks` were chosen; those that `struck` found something to strike.
    """

    seed: int
    kind: str
    shocks: Sequence[str] = ()
    struck: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    seeded: Sequence[SeededVm] = ()
    ended: Counter[str] = field(default_factory=Counter)
    resolved: int = 0
    reruns: int = 0
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def vms(self) -> int:
        return len(self.seeded)

    @property
    def disks(self) -> int:
        return sum(len(vm.disks) for vm in self.seeded)


async def play_round(place: Place, seed: int, shocks: Sequence[Shock] | None = None) -> Round:
    """The dice are those of the seed and the kind of world; how the processes interleave is theirs."""
    began = time.monotonic()
    dice = Random(f"{place.kind}/{seed}")
    chosen = choose_shocks(place, dice) if shocks is None else list(shocks)
    told = Round(seed, place.kind.value, [shock.name for shock in chosen])
    before = await last_call(place.stack)
    stories = [make_story(f"r{seed}-{number}", dice) for number in range(dice.randint(1, MOST_VMS))]
    vms = await place.world.seed_all(stories)
    told.seeded = vms
    person = Person(place, Random(dice.random()))
    asking = [asyncio.create_task(person.clean_up(vm, f"{vm.name}/first")) for vm in vms]
    try:
        await asyncio.gather(*(_strike(place, shock, dice, told) for shock in chosen))
        await place.revive()
        await asyncio.gather(*asking)
        await _to_the_end(person, vms, told, before)
    except TimeoutError as error:
        told.violations.append(f"nobody answered or nothing came to rest: {error or 'too long'}")
    finally:
        for task in asking:
            task.cancel()
        await place.revive()
    told.violations += map(str, await find_violations(place.world, vms, after_call=before))
    told.violations += place.fallen
    place.fallen.clear()
    told.seconds = time.monotonic() - began
    return told


async def _strike(place: Place, shock: Shock, dice: Random, told: Round) -> None:
    own = Random(dice.random())
    await asyncio.sleep(own.uniform(0, SPREAD_S))
    done = await shock.act(place, own)
    if isinstance(done, Missed):
        told.told.append(f"missed: {done.sentence}")
    else:
        told.struck.append(shock.name)
        told.told.append(done)


async def _to_the_end(person: Person, vms: Sequence[SeededVm], told: Round, after_call: int) -> None:
    """First as the daemons leave it; then with a person who settles what is open and asks again where a run went back.

    At every rest it is judged how the runs were left.
    """

    async def rest(some: Sequence[SeededVm]) -> None:
        await _rest(person, some)
        found = await find_rest_violations(person.place.world, some, after_call=after_call)
        told.violations += [one for one in map(str, found) if one not in told.violations]

    await rest(vms)
    for vm in vms:
        job = await person.newest_job(vm)
        told.ended["refused" if job is None else str(job["state"])] += 1
    for turn in range(TURNS):
        left = [vm for vm in vms if not await _is_whole(person, vm)]
        if not left:
            return
        for vm in left:
            job = await person.newest_job(vm)
            if job is not None and job["state"] == JobState.PARKED.value:
                told.resolved += await person.settle_issues(vm)
            else:
                told.reruns += 1
                await person.clean_up(vm, f"{vm.name}/{turn}")
        await rest(left)
    for vm in vms:
        if not await _is_whole(person, vm):
            job = await person.newest_job(vm)
            state, error = (None, None) if job is None else (job["state"], job["error"])
            told.violations.append(f"{vm.name}: nobody could settle it; it is {state}: {error}")


async def _is_whole(person: Person, vm: SeededVm) -> bool:
    job = await person.newest_job(vm)
    return job is not None and job["state"] == JobState.COMPLETED.value


async def _rest(person: Person, vms: Sequence[SeededVm]) -> None:
    """Raises `TimeoutError` with the VMs that did not come to rest."""
    deadline = time.monotonic() + REST_S
    while True:
        busy = [vm.name for vm in vms if not await person.is_at_rest(vm)]
        if not busy:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{', '.join(busy)} did not come to rest in {REST_S:.0f} s")
        await asyncio.sleep(0.1)
