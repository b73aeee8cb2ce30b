"""One seed, from its drawing to its judgement.

A seed draws one or two broken VMs with one to eight volumes in all, one or two daemons, what the CloudStack is like, and
two to five faults. The run is asked for, disturbed, recovered and, in a part of the seeds, settled by a person who says
what is true, until nothing moves any more. Then the invariants are judged over all that happened.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import structlog

from ossea.simulator.model import Settings as CloudSettings
from tests.fakes.invariants import all_violations
from tests.fakes.scenario import NOWHERE, OMA, TEST_VM, BrokenVm, Disk
from tests.simulation.faults import RESTORED, RUN_S, FaultClass, arm_faults, draw_faults, strike_at_rest, top_up
from tests.simulation.meddling import PAUSE, Meddling, draw_meddling, meddle
from tests.simulation.mending import why_not_clean
from tests.simulation.person import REST, Person
from tests.simulation.replicating import detached_under_a_client
from tests.simulation.scene import Scene
from tests.simulation.virtual_time import NeverEnds, run_virtual

HASHES = "PYTHONHASHSEED"
"""Must be 0 for a seed to be the same in every process: sets of texts have one order then."""
LEAST_FAULTS, MOST_FAULTS = 2, 5
RESTORED_EVERY = 40
"""In every seed of such a number an old copy of the database is put in the place of the newer one, besides."""
COMES_TO_AN_END, HELD_IS_NOT_DETACHED, AT_REST = "comes-to-an-end", "held-is-not-detached", "at-rest"
OWN: Final = {
    COMES_TO_AN_END: "A VM is cleaned up in the end, where people tell the truth and nothing it needs is gone for good.",
    HELD_IS_NOT_DETACHED: "No volume is detached from the OMA under an NBD client that was there when it was looked.",
}
"""What the simulation asks beside the invariants."""
QUIET_S = 20.0
LONGEST_REST = 400
"""So often the world is looked at after everybody has finished, until nothing is under way in it any more."""


@dataclass
class Report:
    """What became of one seed."""

    seed: int
    volumes: int = 0
    vms: int = 0
    drawn: list[str] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    meddled: Counter[str] = field(default_factory=Counter)
    recoveries: int = 0
    ended: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Why a VM is not cleaned up although everybody did what they could: for each VM of which that is so."""
    said: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    virtual_s: float = 0.0
    trace: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """One line, and one for each violation."""
        struck, meddled = (_counted(one) for one in (self.struck, self.meddled))
        people = f"people: {meddled}; " if meddled else ""
        kept = f" ({'; '.join(self.kept)})" if self.kept else ""
        line = (
            f"seed {self.seed}: {self.volumes} volumes; {struck or 'no fault'}; {people}{self.recoveries} recoveries; "
            f"{', '.join(self.ended)}{kept} after {self.virtual_s:.0f} s"
        )
        return "\n".join([line, *(f"  VIOLATION {one}" for one in self.violations)])


@dataclass(frozen=True)
class Drawn:
    vms: list[BrokenVm]
    daemons: int
    cloud: CloudSettings
    faults: list[FaultClass]
    settles: bool
    meddling: list[Meddling]


def draw(rng: Random) -> Drawn:
    count = rng.choices(range(1, 9), weights=(36, 24, 14, 8, 6, 5, 4, 3))[0]
    shares = [count] if count == 1 or rng.random() < 0.85 else [count // 2, count - count // 2]
    return Drawn(
        vms=[_draw_vm(rng, f"pgtest{number}", disks) for number, disks in enumerate(shares, 1)],
        daemons=rng.choice((1, 1, 2)),
        cloud=_draw_cloud(rng),
        faults=draw_faults(rng, rng.randint(LEAST_FAULTS, MOST_FAULTS)),
        settles=rng.random() < 0.6,
        meddling=draw_meddling(rng),
    )


def _draw_vm(rng: Random, name: str, count: int) -> BrokenVm:
    disks = []
    for _ in range(count):
        place = rng.choices((TEST_VM, NOWHERE, OMA), weights=(8, 1, 2))[0]
        disks.append(Disk(place=place, mode="oma" if place == OMA else rng.choice(("failover", None))))
    return BrokenVm(name=name, disks=disks, test_vm_state=rng.choice(("Running", "Running", "Stopped")))


def _draw_cloud(rng: Random) -> CloudSettings:
    return CloudSettings().patched(
        {
            "custom_job_id": rng.random() < 0.85,
            "custom_job_id_conflict_code": rng.choice((431, 530)),
            "event_resource": rng.random() < 0.8,
            "revert_mode": rng.choice(("in_place", "replace")),
            "root_dies_at": rng.choice(("destroy", "expunge")),
            "time_scale": rng.choice((0.3, 1.0, 1.0, 3.0)),
        }
    )


def run_seed(seed: int, *, keep_trace: bool = False) -> Report:
    """Lives through the seed; never raises for what it finds."""
    report = Report(seed)
    before = random.getstate()
    random.seed(seed)
    try:
        with _quiet() as faults_of_ours:
            try:
                run_virtual(lambda: _live(report, keep_trace))
            except NeverEnds as error:
                report.violations.append(f"{error} [{AT_REST}]")
        report.violations += [f"a fault of ours: {one}" for one in faults_of_ours]
    finally:
        random.setstate(before)
    return report


async def _live(report: Report, keep_trace: bool) -> None:
    rng = Random(report.seed)
    drawn = draw(rng)
    restores = report.seed % RESTORED_EVERY == 0
    scene = Scene(
        report.seed,
        drawn.cloud,
        daemons=drawn.daemons,
        keep_trace=keep_trace,
        keeps_epochs=restores,
        is_paused_at_times=PAUSE in drawn.meddling,
    )
    report.volumes = sum(len(vm.disks) for vm in drawn.vms)
    report.vms = len(drawn.vms)
    report.drawn = [one.name for one in drawn.faults]
    report.struck, report.meddled = scene.struck, scene.meddled
    report.trace = scene.trace.lines
    try:
        for vm in drawn.vms:
            scene.add(vm)
        scene.open()
        await asyncio.sleep(0.5)
        arm_faults(scene, rng, [*drawn.faults, *([RESTORED] if restores else [])])
        top_up(scene, Random(rng.random()), LEAST_FAULTS)
        people = [Person(scene, vm, Random(rng.random()), settles=drawn.settles) for vm in drawn.vms]
        meddling = meddle(scene, Random(rng.random()), drawn.meddling, RUN_S)
        await asyncio.gather(meddling, *(one.see_it_through() for one in people))
        await strike_at_rest(scene, Random(rng.random()), LEAST_FAULTS)
        report.violations += await _come_to_rest(scene)
        report.said = [word for one in people for word in one.said]
        report.ended = [_end_of(scene, vm) for vm in drawn.vms]
        report.kept = [why for vm in drawn.vms if (why := why_not_clean(scene, vm, scene.job_of(vm))) is not None]
        report.violations += [
            f"{fault} [{COMES_TO_AN_END}]" for one in people if (fault := one.find_fault()) is not None
        ]
        report.violations += [f"{one} [{HELD_IS_NOT_DETACHED}]" for one in detached_under_a_client(scene)]
        found = [
            *(one for person in people for one in person.found),
            *await all_violations(scene, **scene.known_besides),
        ]
        report.violations += dict.fromkeys(map(str, found))
    finally:
        report.recoveries = scene.recoveries
        report.virtual_s = scene.loop.time()
        report.violations += [f"a fault of ours: {_words(one)}" for one in scene.loop.failures]  # type: ignore[attr-defined]  # a virtual loop
        scene.close()


async def _come_to_rest(scene: Scene) -> list[str]:
    """Nothing is done to the world any more, and everything that is under way arrives and ends; else what goes on."""
    scene.calm_down()
    going: list[str] = []
    for _ in range(LONGEST_REST):
        await asyncio.sleep(QUIET_S)
        jobs = [scene.job_of(vm) for vm in scene.vms.values()]
        going = [
            f"the run of {job.vm_name} is {job.state}" for job in jobs if job is not None and job.state not in REST
        ]
        going += scene.list_going()
        if not going:
            break
    return [f"after {LONGEST_REST * QUIET_S:.0f} s {one} [{AT_REST}]" for one in going]


def _end_of(scene: Scene, vm: BrokenVm) -> str:
    job = scene.job_of(vm)
    return "no run" if job is None else job.state.value


def _counted(what: Counter[str]) -> str:
    return ", ".join(f"{name} x{times}" if times > 1 else name for name, times in sorted(what.items()))


def _words(context: dict[str, Any]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"


@contextmanager
def _quiet() -> Iterator[list[str]]:
    """No log; what the products log as a fault of their own is kept."""
    found: list[str] = []

    def keep(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
        if event.get("exc_info"):
            text = structlog.processors.format_exc_info(None, "", event).get("exception", "")
            found.append(f"{event.get('event')} {text}")
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(40), cache_logger_on_first_use=False
    )
    try:
        yield found
    finally:
        structlog.configure(**before)
