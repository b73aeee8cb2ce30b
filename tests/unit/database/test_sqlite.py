"""What only a file can do to the door: a full disk, another process, a file that is something else."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from database import engine as engine_module
from database import schema
from database.door import Door
from database.errors import DatabaseUnavailable, SchemaOutdated
from database.revision import HEAD
from tests.parts import require_part
from tests.unit.database.rows import add, create_rows, numbers, rows

ROOT = Path(__file__).parents[3]

COUNTER = """
import asyncio, sys
from database.door import Door
from sqlalchemy import text

async def main():
    door = await Door.open(sys.argv[1])
    def up(connection):
        value = connection.execute(text("SELECT word FROM rows WHERE id = 0")).scalar_one()
        connection.execute(text("UPDATE rows SET word = :word WHERE id = 0"), {"word": str(int(value) + 1)})
    for _ in range(10):
        await asyncio.gather(*(door.write(up) for _ in range(10)))
    await door.close()

asyncio.run(main())
"""

KILLED = """
import asyncio, os, signal, sys
from database.door import Door
from sqlalchemy import text

async def main():
    door = await Door.open(sys.argv[1])
    await asyncio.gather(*(
        door.write(lambda c, n=n: c.execute(text("INSERT INTO rows (id) VALUES (:n)"), {"n": n})) for n in range(20)
    ))
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def run(program: str, url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", program, url], env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/oma.db"


async def test_journal_and_synchronous_are_read_back_from_the_writing_connection(door: Door) -> None:
    def look(connection: Connection) -> tuple[object, ...]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return tuple(connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names)

    assert await door.write(look) == ("wal", 2, 1)


async def test_a_full_disk_is_recognised_and_ends_when_there_is_room(door: Door) -> None:
    def narrow(connection: Connection) -> None:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")

    await door.write(narrow)
    words = [asyncio.create_task(door.write(add(n, "x" * 5000))) for n in range(3)]
    for result in await asyncio.gather(*words, return_exceptions=True):
        assert isinstance(result, DatabaseUnavailable)
        assert result.disk_full
        assert not result.outcome_unknown
    assert await door.read(numbers) == []
    await door.write(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=100000") and None)
    assert await door.write(add(1, "x" * 5000)) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "small"
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(where)], check=False, capture_output=True
    )
    require_part("root that may mount", mounted.returncode == 0)
    yield where
    subprocess.run(["umount", str(where)], check=True)


async def one_more(door: Door, number: int) -> int | DatabaseUnavailable:
    try:
        return await door.write(add(number, "x" * 5000))
    except DatabaseUnavailable as error:
        return error


@pytest.mark.root
async def test_a_really_full_disk(small_disk: Path) -> None:
    door = await Door.open(f"sqlite:///{small_disk}/oma.db")
    await door.write(create_rows)
    await door.write(add(0))
    results = [await one_more(door, n) for n in range(1, 200)]
    refused = [result for result in results if isinstance(result, DatabaseUnavailable)]
    assert refused
    assert all(error.disk_full for error in refused)
    assert await door.read(numbers) == [0] + [result for result in results if isinstance(result, int)]
    await door.close()


async def test_a_lock_that_another_process_keeps_is_said(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "BUSY_TIMEOUT_S", 0.1)
    door = await Door.open(url)
    await door.write(create_rows)
    with closing(sqlite3.connect(tmp_path / "oma.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for result in await asyncio.gather(*(door.write(add(n)) for n in (1, 2)), return_exceptions=True):
            assert isinstance(result, DatabaseUnavailable)
            assert "locks" in result.reason
        assert await door.read(numbers) == []
        other.execute("ROLLBACK")
    assert await door.write(add(3)) == 3
    await door.close()


async def test_two_processes_share_a_file(url: str, door: Door) -> None:
    """Each reads a number and writes the next one; a lost update would show in the sum."""
    await door.write(add(0, "0"))
    processes = [run(COUNTER, url) for _ in range(2)]
    assert [await asyncio.to_thread(process.wait) for process in processes] == [0, 0]
    assert await door.read(lambda c: c.execute(select(rows.c.word)).scalar()) == "200"


async def test_two_processes_may_make_the_same_new_file(tmp_path: Path) -> None:
    program = "import sys; from database import schema; schema.upgrade(sys.argv[1])"
    for attempt in range(3):
        url = f"sqlite:///{tmp_path}/{attempt}.db"
        processes = [run(program, url) for _ in range(3)]
        assert [await asyncio.to_thread(process.wait) for process in processes] == [0, 0, 0]
        assert await asyncio.to_thread(schema.check, url) == []


async def test_what_was_answered_outlives_a_kill(url: str, door: Door) -> None:
    process = run(KILLED, url)
    assert await asyncio.to_thread(process.wait) == -signal.SIGKILL
    assert await door.read(numbers) == list(range(20))


async def test_check_tells_of_the_schema(url: str) -> None:
    door = await Door.open(url)
    with pytest.raises(SchemaOutdated, match="oma db upgrade"):
        await door.check()
    await asyncio.to_thread(schema.upgrade, url)
    sentence = await door.check()
    assert HEAD in sentence
    assert "WAL" in sentence
    await door.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense", "database.url"),
        ("postgresql://a:secret@b/c", "postgresql"),
        ("mysql+aiomysql://a:secret@b/c", "mysql\\+pymysql"),
        ("mysql+pymysql://a:secret@b", "names no database"),
        ("sqlite:////nowhere/at/all/oma.db", "/nowhere/at/all/oma.db"),
        ("mysql+pymysql://a:secret@127.0.0.1:1/c", "127.0.0.1:1/c"),
    ],
)
async def test_an_url_that_leads_nowhere_is_said_without_its_password(url: str, words: str) -> None:
    with pytest.raises(DatabaseUnavailable, match=words) as caught:
        await Door.open(url)
    assert "secret" not in caught.value.reason


@pytest.mark.parametrize("content", [b"something else entirely " * 500, b"SQLite format 3\0" + b"\xff" * 8000])
async def test_a_file_that_is_no_database_is_said_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "oma.db"
    path.write_bytes(content)
    with pytest.raises(DatabaseUnavailable, match="database"):
        await Door.open(f"sqlite:///{path}")
    assert path.read_bytes() == content


async def test_a_zone_that_does_not_exist_is_said(url: str, tmp_path: Path) -> None:
    # Only where local times are to be read: a database of ours has none.
    door = await Door.open(url, legacy_time_zone="Europe/Berlin")
    await door.close()
    with pytest.raises(DatabaseUnavailable, match="legacy_time_zone"):
        await Door.open(url, legacy_time_zone="Mars/Olympus")


async def test_a_door_belongs_to_its_event_loop(door: Door) -> None:
    def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(door.write(add(1)))

    await asyncio.to_thread(elsewhere)
