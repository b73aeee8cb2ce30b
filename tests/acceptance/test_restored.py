"""6-safety 6: an old copy of the database is put back under a world that went on; real processes, a real file."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from oma.demo.ports import ANY_PORTS
from oma.demo.programs import clean_environment, find_command
from oma.demo.stack import Stack, StackOptions, running_stack
from oma.demo.story import DiskStory, VmStory
from oma.demo.threads import in_thread
from oma.demo.world import World

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.rule("6-epochs")]
OMA = find_command("oma")
OLDER = "503 database_older_than_world"


def copy_database(source: Path, target: Path) -> None:
    """A backup as SQLite makes it, beside whoever uses the file."""
    with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)


def put_back(copy: Path, target: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
    copy.rename(target)


async def accept(stack: Stack, reason: str) -> tuple[int, str]:
    command = [OMA, "--config", str(stack.config), "db", "accept-restore", "--reason", reason]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=clean_environment()
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def until_refused(stack: Stack, name: str) -> str:
    """The daemon compares once it is ready."""
    async with asyncio.timeout(20):
        while True:
            reply = await stack.operator.clean_up(name)
            if reply.status == 503:
                return reply.word


async def test_an_old_copy_is_noticed_and_goes_on_only_after_a_person_has_looked(tmp_path: Path) -> None:
    options = StackOptions(directory=tmp_path / "stack", ports=ANY_PORTS, simulator={"time_scale": 0.01})
    async with running_stack(options) as stack:
        world, database = World(stack), tmp_path / "stack" / "oma.db"
        for name in ("cleaned", "left"):
            await world.seed(VmStory(name=name, disks=(DiskStory(),), test_vm="Stopped"))
        await stack.oma.stop()
        await in_thread(copy_database, database, tmp_path / "copy.db")
        await stack.oma.start()
        await stack.ready()
        assert (await stack.operator.clean_up("cleaned")).status == 200
        await stack.oma.stop()
        await stack.door.close()
        await in_thread(put_back, tmp_path / "copy.db", database)
        before = max((call["seq"] for call in await stack.admin.calls()), default=0)
        await stack.oma.start()
        await stack.ready()

        assert await until_refused(stack, "left") == OLDER
        changed = [call["command"] for call in await stack.admin.calls(after=before)]
        assert not {"detachVolume", "revertSnapshot", "deleteSnapshot", "createTags"}.intersection(changed)

        status, said = await accept(stack, "the copy of Monday, nothing else was done")
        assert status == 0, said
        assert "The restored database is accepted at epoch" in said
        async with asyncio.timeout(20):
            while (reply := await stack.operator.clean_up("left")).status == 503:
                pass
        assert (reply.status, reply.body.get("replica")) == (200, "ready"), reply
