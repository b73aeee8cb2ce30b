"""One course of a flow: a daemon that dies at a point, one that comes after it, and what the world looks like then."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from appliance import crashpoints
from tests.crash.dying import Death
from tests.crash.volume_daemon.flows import Flow, Scene
from tests.crash.volume_daemon.rest import find_disagreements
from tests.integration.volume_daemon.conftest import World
from volume_daemon.client import VolumeDaemonClient

LONGEST_S = 60.0
SEEING = {"holder_scope": "readable"}
"""Some machines hide their first process even from root; what the flows start is readable for them."""


async def die_and_come_back(world: World, flow: Flow, point: str, time: int = 1) -> list[str]:
    """What is wrong afterwards; empty: it converged."""
    async with flow.staged(world) as scene:
        death = Death(point, time=time)
        await _live_until(scene, flow, death)
        if not death.died:
            return [f"it never came to {point}"]
        try:
            async with asyncio.timeout(LONGEST_S):
                await _live(scene, flow)
        except TimeoutError:
            return [f"it did not come to an end; it is at {_open(world)}"]
        return await find_faults(scene, flow)


async def find_faults(scene: Scene, flow: Flow) -> list[str]:
    """What does not agree, and what its caller was told wrongly, now that nothing is under way."""
    return _told_otherwise(scene, flow) + await find_disagreements(scene.world, [scene.volume_id, *scene.others])


async def _live(scene: Scene, flow: Flow) -> None:
    async with scene.world.daemon(**SEEING, **flow.settings) as client:
        await flow.play(scene, client)
        # The caller has left; what it has begun is seen to its end all the same.
        await until_nothing_is_open(scene.world, client)


async def _live_until(scene: Scene, flow: Flow, death: Death) -> None:
    """Until it is dead: nothing that it would still do counts then, or is done."""
    loop, dead = asyncio.get_running_loop(), asyncio.Event()
    death.tell = lambda: loop.call_soon_threadsafe(dead.set)  # type: ignore[assignment]
    with crashpoints.listening(death):
        life = asyncio.create_task(_live(scene, flow))
        end = asyncio.create_task(dead.wait())
        await asyncio.wait({life, end}, return_when=asyncio.FIRST_COMPLETED, timeout=LONGEST_S)
        life.cancel()
        end.cancel()
        with suppress(BaseException):
            await life


async def until_nothing_is_open(world: World, client: VolumeDaemonClient) -> None:
    while ids := await asyncio.to_thread(_open, world):
        await asyncio.gather(*(client.get_operation(id_, 20) for id_ in ids))


def _open(world: World) -> list[str]:
    rows = world.query("SELECT operation_id FROM volume_daemon_operations WHERE stage <> 'ended'")
    return [row["operation_id"] for row in rows]


def _told_otherwise(scene: Scene, flow: Flow) -> list[str]:
    """Steps whose caller was told something else than it should be in the end."""
    told = {step: operation.status.value for step, operation in scene.ended.items() if step in flow.expect}
    if told == flow.expect:
        return []
    errors = {step: operation.error for step, operation in scene.ended.items() if operation.error}
    return [f"its caller was told {told}, not {flow.expect}: {errors}"]
