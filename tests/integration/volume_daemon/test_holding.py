"""A hold on the journal that the server ended (its restart, a KILL, a proxy's idle cut) while another waits for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from database.hold import Hold, build_hold
from tests.integration.volume_daemon.conftest import FAST, OMA_ID, World, ended
from tests.integration.volume_daemon.test_start import until_healthy
from tests.mariadb import MariaDb
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.errors import VolumeDaemonError
from volume_daemon.models import OperationStatus
from volume_daemon.server.holding import PROGRAM, Holding

pytestmark = pytest.mark.mariadb
NEVER_S = 3600.0


@pytest.fixture
def database_url(mariadb_server: MariaDb, mariadb_database: str) -> str:
    return mariadb_server.url(mariadb_database)


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """How often the next daemon looks after its hold by itself."""

    def every(look_s: float) -> None:
        monkeypatch.setattr("volume_daemon.server.opening.Holding", partial(Holding, look_s=look_s))

    return every


@pytest.fixture
def slow_reload(tmp_path: Path) -> Iterator[tuple[list[str], Callable[[], object]]]:
    """A reload of nbd-server that takes until it is let go; each call of the function lets one go."""
    pipe, started = tmp_path / "pipe", tmp_path / "started"
    os.mkfifo(pipe)
    script = tmp_path / "reload.sh"
    script.write_text(f"#!/bin/sh\ntouch {started}\nread word < {pipe}\n")
    script.chmod(0o755)
    handle = os.open(pipe, os.O_RDWR)
    yield [str(script)], lambda: os.write(handle, b"on\n")
    os.close(handle)


@asynccontextmanager
async def taken_over(server: MariaDb, url: str) -> AsyncIterator[None]:
    """The server ends the daemon's session, and another has the hold before the daemon looks."""
    other = build_hold(url, PROGRAM)
    await asyncio.to_thread(_take_over, server, other)
    try:
        yield
    finally:
        await asyncio.to_thread(other.release)


def _take_over(server: MariaDb, other: Hold) -> None:
    assert other.take() is None
    ((number,),) = server.execute(f"SELECT IS_USED_LOCK('{other._name}')")  # type: ignore[attr-defined]
    server.execute(f"KILL {number}")
    while other.take() is None:
        pass


async def until_refused(client: VolumeDaemonClient, code: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await client.find_mapping(str(uuid4()))
            except VolumeDaemonError as told:
                if told.code == code:
                    return


async def test_nothing_begins_although_it_has_not_looked_yet(
    world: World, mariadb_server: MariaDb, looking: Callable[[float], None]
):
    volume_id = await world.add_volume(str(uuid4()))
    looking(NEVER_S)
    async with world.daemon() as client:
        await until_healthy(client)
        async with taken_over(mariadb_server, world.database_url):
            with pytest.raises(VolumeDaemonError) as told:
                await client.attach(volume_id, OMA_ID)
    assert told.value.status == 503
    assert world.query("SELECT id FROM volume_operations") == []
    assert await world.changes("attachVolume") == []


async def test_what_was_about_to_be_sent_is_not_and_goes_on_once_it_has_the_hold_again(
    world: World,
    mariadb_server: MariaDb,
    looking: Callable[[float], None],
    slow_reload: tuple[list[str], Callable[[], object]],
):
    """The intent is committed, the export is just being taken away: the last question is right before the call."""
    command, let_go = slow_reload
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon() as client:
        await ended(client, await client.attach(volume_id, OMA_ID))
    looking(1.0)
    async with world.daemon(nbd_reload_command=command) as client:
        await until_healthy(client)
        operation = await client.detach(volume_id)
        while not (world.path / "started").exists():
            await client.health()
        async with taken_over(mariadb_server, world.database_url):
            let_go()
            await until_refused(client, "journal_in_use")
            assert await world.changes("detachVolume") == []
            assert [row["stage"] for row in world.query("SELECT stage FROM volume_daemon_operations ORDER BY seq")] == [
                "ended",
                "sent",
            ]
        let_go()
        await until_healthy(client)
        done = await ended(client, operation)
    assert (done.status, done.error) == (OperationStatus.COMPLETED, None)
    assert len(await world.changes("detachVolume")) == 1


async def test_what_another_accepted_in_between_is_gone_on_with(
    world: World, mariadb_server: MariaDb, looking: Callable[[float], None]
):
    """Nobody asks the first one for it."""
    volume_id = await world.add_volume(str(uuid4()))
    looking(0.05)
    async with world.daemon() as first:
        await until_healthy(first)
        async with taken_over(mariadb_server, world.database_url):
            await until_refused(first, "journal_in_use")
            # As another daemon leaves it that is stopped in the middle.
            await world.admin.put_settings(durations=FAST | {"attachVolume": 1.0})
            _accept(world, volume_id)
        async with asyncio.timeout(60):
            while [row["status"] for row in world.query("SELECT status FROM volume_operations")] != ["completed"]:
                await first.health()
    assert len(await world.changes("attachVolume")) == 1


def _accept(world: World, volume_id: str) -> None:
    key = str(uuid4())
    world.execute(
        "INSERT INTO volume_operations (id, type, status, volume_id, vm_id, request, created_at, updated_at)"
        " VALUES (:id, 'attach', 'pending', :volume, :vm, '{}', UTC_TIMESTAMP(), UTC_TIMESTAMP())",
        id=key,
        volume=volume_id,
        vm=OMA_ID,
    )
    world.execute(
        "INSERT INTO volume_daemon_operations (operation_id, volume_id, stage, content_hash, accepted_at)"
        " VALUES (:id, :volume, 'accepted', 'x', UTC_TIMESTAMP())",
        id=key,
        volume=volume_id,
    )
