"""The way of a person to a daemon: whichever answers, as through an address that stands for both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

from oma.domain.errors import Code, OmaError
from oma.service.deps import Deps
from tests.simulation.oma_daemon import OmaProcess
from tests.simulation.scene import Scene
from tests.simulation.virtual_time import Killed

T = TypeVar("T")

ANSWER_S = 4000.0
LONGEST_PAUSE_S = 1800.0
PAUSES = 100
"""Times that a person looks whether a daemon is up again; some are away for more than a day."""
Note = Callable[[str], None]


async def ask_a_daemon(
    scene: Scene, rng: Random, call: Callable[[Deps], Awaitable[T]], what: str, note: Note
) -> T | None:
    """What it answers; None where it refuses, or dies over it. `note` is told what came of it.

    Raises `OmaError` where the daemon calls it a fault of its own.
    """
    daemon = await _find_daemon(scene, rng)
    if daemon is None:
        note(f"{what}: no daemon answers")
        return None

    async def work() -> T:
        return await call(daemon.deps)

    task = scene.loop.create_task(work(), context=daemon.context)
    gone = scene.loop.create_future()
    daemon.life.deaths.append(lambda: None if gone.done() else gone.set_result(None))
    await asyncio.wait({task, gone}, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
    if not task.done():
        note(f"{what}: no answer")
        return None
    try:
        result = task.result()
    except OmaError as error:
        note(f"{what}: {error.code.value}: {error}")
        if error.code is Code.INTERNAL_ERROR:
            raise
        return None
    except Killed:
        return None
    note(what)
    return result


async def _find_daemon(scene: Scene, rng: Random) -> OmaProcess | None:
    pause_s = 10.0
    for _ in range(PAUSES):
        alive = [one for one in scene.daemons.values() if one.serves]
        if alive:
            return rng.choice(alive)
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.3, LONGEST_PAUSE_S)
    return None
