"""What people do to a run that goes on: they cancel it, pause it or all of them, or stop its daemon with SIGTERM."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from oma.domain.controls import Scope
from oma.domain.jobs import OPERATION
from oma.domain.states import JobState
from oma.service.control import cancel_job
from oma.service.pausing import ControlRequest, pause, resume
from tests.simulation.asking import Note, ask_a_daemon
from tests.simulation.scene import Scene

WHO: Final = "eva"
DRAIN_S: Final = 30.0
MOST_TIMES: Final = 100
REST: Final = frozenset({JobState.COMPLETED, JobState.PARKED, JobState.FAILED, JobState.CANCELLED})


class Do(Protocol):
    async def __call__(self, scene: Scene, rng: Random, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Meddling:
    """`do` is done at a moment that is drawn; it tells the scene when it has an effect."""

    name: str
    do: Do


async def _cancel(scene: Scene, rng: Random) -> None:
    job = scene.job_of(scene.any_vm())
    if job is None or job.state in REST:
        return
    what = f"cancelled {job.vm_name}"
    if await ask_a_daemon(
        scene, rng, lambda deps: cancel_job(deps, job.id, "the wrong VM", actor=WHO), what, _tell(scene)
    ):
        scene.meddled["cancel"] += 1


async def _pause(scene: Scene, rng: Random) -> None:
    """And let go on, however often that has to be said."""
    vm = scene.any_vm()
    request = rng.choice(
        (
            ControlRequest(Scope.ALL, reason="the array reboots", requested_by=WHO),
            ControlRequest(Scope.OPERATION, operation=OPERATION, reason="the array reboots", requested_by=WHO),
            ControlRequest(Scope.VM, vm_name=vm.name, reason="somebody looks at it", requested_by=WHO),
        )
    )
    if await ask_a_daemon(scene, rng, lambda deps: pause(deps, request), f"paused {request.scope}", _tell(scene)):
        scene.meddled["pause"] += 1
    await asyncio.sleep(rng.uniform(5.0, 300.0))
    for _ in range(MOST_TIMES):
        if await ask_a_daemon(scene, rng, lambda deps: resume(deps, request), "let it go on", _tell(scene)):
            return
        await asyncio.sleep(30.0)


async def _drain(scene: Scene, rng: Random) -> None:
    daemon = scene.daemons[rng.choice(scene.names)]
    if not daemon.serves:
        return
    scene.meddled["drain"] += 1
    scene.trace(f"{daemon.life.name:9} is told to stop")

    async def stop() -> None:
        daemon.deps.stopping.set()
        await daemon.worker.drain(DRAIN_S)
        daemon.life.kill()

    await asyncio.wait({scene.loop.create_task(stop(), context=daemon.context)}, timeout=10 * DRAIN_S)


PAUSE: Final = Meddling("pause", _pause)
MEDDLINGS: Final = (Meddling("cancel", _cancel), PAUSE, Meddling("drain", _drain))


def draw_meddling(rng: Random) -> list[Meddling]:
    return rng.choices(MEDDLINGS, k=rng.choices((0, 1, 2), weights=(6, 3, 1))[0])


async def meddle(scene: Scene, rng: Random, meddlings: Iterable[Meddling], within_s: float) -> None:
    """All of them, each at a moment of its own; returns when the last is done with."""

    async def one(meddling: Meddling, own: Random) -> None:
        await asyncio.sleep(own.uniform(0.5, within_s))
        await meddling.do(scene, own)

    await asyncio.gather(*(one(each, Random(rng.random())) for each in meddlings))


def _tell(scene: Scene) -> Note:
    return lambda words: scene.trace(f"{WHO:9} {words}")
