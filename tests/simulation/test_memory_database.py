"""A process's writes die with it until they are committed, and stand afterwards, told or not."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import Connection, insert, select

from database.errors import DatabaseUnavailable
from database.tables import oma_sequences
from database.times import read_clock
from tests.simulation.memory_database import COMMIT_S, CommitFault, MemoryDatabase, MemoryDoor
from tests.simulation.virtual_time import Life, VirtualClock, context_of, run_virtual


def _write(connection: Connection) -> str:
    connection.execute(insert(oma_sequences).values(name="one", value=1))
    return "written"


def _stands(connection: Connection) -> bool:
    return connection.execute(select(oma_sequences.c.name).where(oma_sequences.c.name == "one")).first() is not None


async def _live(after_s: float) -> tuple[bool, list[str]]:
    """One write by a process that dies so long after it asked; whether it stands, and what the process was told."""
    database = MemoryDatabase(VirtualClock(asyncio.get_running_loop()).now)
    life, told = Life("daemon"), []
    door = MemoryDoor(database, life)

    async def work() -> None:
        told.append(await door.write(_write))

    task = asyncio.get_running_loop().create_task(work(), context=context_of(life))
    await asyncio.sleep(after_s)
    life.kill()
    await asyncio.sleep(1.0)
    door.close()
    assert task.done() == bool(told)
    return database.run(_stands), told


def test_a_write_that_was_not_committed_dies_with_its_process() -> None:
    assert run_virtual(lambda: _live(COMMIT_S / 2)) == (False, [])


def test_a_committed_one_stands() -> None:
    assert run_virtual(lambda: _live(COMMIT_S * 2)) == (True, ["written"])


@pytest.mark.parametrize("fault", CommitFault)
def test_a_commit_whose_answer_is_lost_is_read_back_before_anything_is_told(fault: CommitFault) -> None:
    struck: list[CommitFault] = []

    async def main() -> bool:
        database = MemoryDatabase(VirtualClock(asyncio.get_running_loop()).now)
        door = MemoryDoor(database, Life("daemon"))
        door.lose_commit(fault, lambda: struck.append(fault))
        assert await door.write(_write, confirm=_stands) == "written"
        door.close()
        return database.run(_stands)

    assert run_virtual(main)
    assert struck == [fault]


def test_a_database_that_is_away_refuses_and_is_there_again_afterwards() -> None:
    async def main() -> None:
        database = MemoryDatabase(VirtualClock(asyncio.get_running_loop()).now)
        door = MemoryDoor(database, Life("daemon"))
        database.is_away = True
        with pytest.raises(DatabaseUnavailable):
            await door.write(_write)
        with pytest.raises(DatabaseUnavailable):
            await door.read(_stands)
        database.is_away = False
        await door.write(_write)
        assert await door.read(_stands)
        door.close()

    run_virtual(main)


def test_leases_are_measured_by_the_databases_own_clock_which_may_jump() -> None:
    async def main() -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        database = MemoryDatabase(clock.now)
        await asyncio.sleep(90.0)
        assert abs((database.run(read_clock) - clock.now()).total_seconds()) < 0.01
        database.clock_offset_s = 3600.0
        assert abs((database.run(read_clock) - clock.now()).total_seconds() - 3600.0) < 0.01

    run_virtual(main)
