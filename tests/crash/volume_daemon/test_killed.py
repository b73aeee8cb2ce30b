"""The real program is killed from outside where it stands at a crash point; its successor goes on (6-safety 9)."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress

import pytest

from tests.crash.volume_daemon.dying_daemon import STANDS
from tests.crash.volume_daemon.flows import FLOWS, Flow, Scene
from tests.crash.volume_daemon.lives import LONGEST_S, SEEING, find_faults, until_nothing_is_open
from tests.integration.volume_daemon.conftest import Daemon, World
from volume_daemon.errors import VolumeDaemonError

PLACES = [
    ("off", "journal.accept.after"),
    ("off", "journal.finish.within"),
    ("off", "nbd.remove.after"),
    ("off", "cloud.detach.after"),
    ("home", "nbd.write.within"),
    ("already-off", "device.gone"),
    ("holder", "holders.term.after"),
    ("taken-back", "journal.revoke.after"),
]
"""One of each kind: journal, transaction, file, CloudStack, device, signal."""


@pytest.mark.rule("9-invariants")
@pytest.mark.parametrize(("name", "point"), PLACES)
async def test_killed_where_it_stands_the_next_one_goes_on(world: World, name: str, point: str) -> None:
    flow = FLOWS[name]
    async with flow.staged(world) as scene:
        program = (sys.executable, "-m", "tests.crash.volume_daemon.dying_daemon", f"volume_daemon.{point}")
        daemon = await world.process(program=program, **SEEING, **flow.settings)
        await _play_until_it_stands(flow, scene, daemon)
        assert await daemon.stop(signal.SIGKILL) == -signal.SIGKILL
        daemon = await world.process(**SEEING, **flow.settings)
        try:
            async with asyncio.timeout(LONGEST_S):
                await flow.play(scene, daemon.client)
                await until_nothing_is_open(world, daemon.client)
        finally:
            assert await daemon.stop() == 0
        assert await find_faults(scene, flow) == []


async def _play_until_it_stands(flow: Flow, scene: Scene, daemon: Daemon) -> None:
    assert daemon.process.stdout is not None
    play = asyncio.create_task(flow.play(scene, daemon.client))
    try:
        assert await asyncio.wait_for(daemon.process.stdout.readline(), LONGEST_S) == STANDS
    finally:
        play.cancel()
        with suppress(asyncio.CancelledError, VolumeDaemonError):
            await play
