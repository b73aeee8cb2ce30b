"""What only a server can do to the door: lost answers, restarts, deadlocks, locks, weak settings."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import DBAPIError

from database import engine as engine_module
from database import schema
from database.door import Door
from database.errors import DatabaseUnavailable, SchemaOutdated
from database.revision import HEAD
from database.tables import replication_jobs
from tests.mariadb import MariaDb, is_installed, running_mariadb
from tests.parts import require_part
from tests.unit.database.proxy import Loss, Proxy
from tests.unit.database.rows import Unwanted, add, add_and_raise, create_rows, has, numbers, rows

pytestmark = pytest.mark.mariadb


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "BUSY_TIMEOUT_S", 1)


@pytest.fixture
def url(mariadb_url: str) -> str:
    return mariadb_url


@pytest.fixture
async def proxy(mariadb_server: MariaDb, mariadb_database: str) -> AsyncIterator[Proxy]:
    # Ends before the database is dropped: a session that it kept alive would hold the tables.
    async with Proxy(mariadb_server.port).running() as proxy:
        yield proxy


@pytest.fixture
async def far(proxy: Proxy, url: str, mariadb_server: MariaDb) -> AsyncIterator[Door]:
    """A door whose connections go through the proxy."""
    door = await Door.open(url.replace(f":{mariadb_server.port}/", f":{proxy.listening_port}/"))
    await door.write(create_rows)
    yield door
    await door.close()


def counted(fn: Callable[[Connection], int]) -> tuple[Callable[[Connection], int], list[int]]:
    calls: list[int] = []

    def write(connection: Connection) -> int:
        calls.append(1)
        return fn(connection)

    return write, calls


async def test_a_lost_answer_is_looked_up_and_found_committed(far: Door, proxy: Proxy) -> None:
    write, calls = counted(add(1))
    proxy.loss = Loss.ANSWER
    assert await far.write(write, confirm=has(1)) == 1
    assert (proxy.lost, len(calls)) == (1, 1)
    assert await far.read(numbers) == [1]


@pytest.mark.parametrize("loss", [Loss.QUESTION, Loss.LINK])
async def test_a_commit_that_never_arrived_is_done_again(far: Door, proxy: Proxy, loss: Loss) -> None:
    """With the link lost the old session still holds the row's lock; it is ended first, or the second try would wait."""
    await far.write(add(1, "old"))
    write, calls = counted(lambda connection: connection.execute(rows.update().values(word="new")).rowcount)
    proxy.loss = loss
    result = await far.write(write, confirm=lambda c: c.execute(select(rows.c.word)).scalar_one() == "new")
    assert (result, proxy.lost, len(calls)) == (1, 1, 2)
    assert await far.read(lambda connection: connection.execute(select(rows.c.word)).scalar()) == "new"


@pytest.mark.parametrize("loss", list(Loss))
async def test_without_a_way_to_look_it_up_the_outcome_is_said_to_be_unknown(
    far: Door, proxy: Proxy, loss: Loss
) -> None:
    proxy.loss = loss
    with pytest.raises(DatabaseUnavailable, match="unknown") as caught:
        await far.write(add(1))
    assert caught.value.outcome_unknown
    assert await far.write(add(2)) == 2
    assert (await far.read(numbers))[-1] == 2


async def test_in_a_batch_each_is_told_by_its_own_confirmation(far: Door, proxy: Proxy) -> None:
    write, calls = counted(add(1))
    proxy.loss = Loss.ANSWER
    results = await asyncio.gather(
        far.write(write, confirm=has(1)),
        far.write(add(2)),
        far.write(add_and_raise(3), confirm=has(1)),
        return_exceptions=True,
    )
    assert results[0] == 1
    assert isinstance(results[1], DatabaseUnavailable)
    assert results[1].outcome_unknown
    assert isinstance(results[2], Unwanted)
    assert len(calls) == 1
    assert await far.read(numbers) == [1, 2]


async def test_a_batch_whose_commit_never_arrived_is_done_again(far: Door, proxy: Proxy) -> None:
    proxy.loss = Loss.QUESTION
    assert await asyncio.gather(*(far.write(add(n), confirm=has(n)) for n in range(5))) == list(range(5))
    assert await far.read(numbers) == list(range(5))


def ask_for_nothing(connection: Connection) -> bool:
    connection.execute(text("SELECT * FROM not_there"))
    return True


def ask_wrongly(_connection: Connection) -> bool:
    raise Unwanted


@pytest.mark.parametrize("confirm", [ask_for_nothing, ask_wrongly])
async def test_a_confirmation_that_fails_leaves_the_outcome_unknown(
    far: Door, proxy: Proxy, confirm: Callable[[Connection], bool]
) -> None:
    proxy.loss = Loss.ANSWER
    with pytest.raises(DatabaseUnavailable) as caught:
        await far.write(add(1), confirm=confirm)
    assert caught.value.outcome_unknown
    assert await far.write(add(2)) == 2


async def test_connections_that_were_killed_are_replaced(
    door: Door, mariadb_server: MariaDb, mariadb_database: str
) -> None:
    await door.read(numbers)

    def kill() -> int:
        ids = mariadb_server.execute(
            f"SELECT id FROM information_schema.processlist WHERE db = '{mariadb_database}' AND user = 'oma'"
        )
        for (number,) in ids:
            mariadb_server.execute(f"KILL {number}")
        return len(ids)

    assert await asyncio.to_thread(kill) == 2
    assert await door.write(add(1)) == 1
    assert await door.read(numbers) == [1]
    assert await asyncio.to_thread(kill) == 2
    assert await asyncio.gather(*(door.write(add(n)) for n in (2, 3))) == [2, 3]


async def test_a_connection_killed_inside_a_batch_loses_nobodys_write(door: Door, mariadb_server: MariaDb) -> None:
    killed: list[int] = []

    def write(connection: Connection) -> None:
        if not killed:
            killed.append(connection.execute(text("SELECT CONNECTION_ID()")).scalar_one())
            mariadb_server.execute(f"KILL {killed[0]}")
        add(2)(connection)

    await asyncio.gather(door.write(add(1)), door.write(write), door.write(add(3)))
    assert await door.read(numbers) == [1, 2, 3]


async def test_a_lost_connection_that_a_member_swallowed_is_no_success(door: Door, mariadb_server: MariaDb) -> None:
    def write(connection: Connection) -> str:
        add(2)(connection)
        mariadb_server.execute(f"KILL {connection.execute(text('SELECT CONNECTION_ID()')).scalar_one()}")
        try:
            add(3)(connection)
        except DBAPIError:
            return "swallowed"
        return "not seen"

    results = await asyncio.gather(door.write(add(1)), door.write(write), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], DatabaseUnavailable)
    assert await door.read(numbers) == [1]


async def test_the_victim_of_a_deadlock_is_run_again(url: str, door: Door) -> None:
    """Two programs take two rows' locks crosswise; InnoDB rolls one of them back wholly, with its batch."""
    other = await Door.open(url)
    await asyncio.gather(door.write(add(1)), door.write(add(2)))
    both = threading.Barrier(2, timeout=30)

    def cross(first: int, second: int, word: str) -> Callable[[Connection], int]:
        calls: list[int] = []

        def write(connection: Connection) -> int:
            calls.append(1)
            connection.execute(rows.update().where(rows.c.id == first).values(word=word))
            if len(calls) == 1:
                both.wait()
            connection.execute(rows.update().where(rows.c.id == second).values(word=word))
            return len(calls)

        return write

    results = await asyncio.gather(
        door.write(add(10)), door.write(cross(1, 2, "a")), other.write(add(20)), other.write(cross(2, 1, "b"))
    )
    assert sorted([results[1], results[3]]) == [1, 2]
    assert await door.read(numbers) == [1, 2, 10, 20]
    words = await door.read(lambda connection: list(connection.execute(select(rows.c.word).limit(2)).scalars()))
    assert len(set(words)) == 1
    await other.close()


async def test_a_lock_held_by_another_program_costs_only_its_own_waiter(
    door: Door, mariadb_server: MariaDb, mariadb_database: str
) -> None:
    await door.write(add(1))

    def change(connection: Connection) -> None:
        connection.execute(rows.update().where(rows.c.id == 1).values(word="new"))

    with mariadb_server.admin(mariadb_database) as holder, holder.cursor() as cursor:
        await asyncio.to_thread(cursor.execute, "BEGIN")
        await asyncio.to_thread(cursor.execute, "SELECT * FROM `rows` WHERE id = 1 FOR UPDATE")
        results = await asyncio.gather(
            door.write(add(2)), door.write(change), door.write(add(3)), return_exceptions=True
        )
        await asyncio.to_thread(cursor.execute, "ROLLBACK")
    assert results[0] == 2
    assert isinstance(results[1], DatabaseUnavailable)
    assert not results[1].outcome_unknown
    assert results[2] == 3
    await door.write(change)
    assert await door.read(numbers) == [1, 2, 3]


async def test_sessions_speak_utc_utf8_and_refuse_what_does_not_fit(door: Door) -> None:
    query = text(
        "SELECT @@time_zone, @@character_set_connection, @@tx_isolation, @@tx_read_only, @@sql_mode LIKE '%STRICT%'"
    )

    def look(connection: Connection) -> tuple[object, ...]:
        return tuple(connection.execute(query).one())

    assert await door.write(look) == ("+00:00", "utf8mb4", "READ-COMMITTED", 0, 1)
    assert await door.read(look) == ("+00:00", "utf8mb4", "REPEATABLE-READ", 1, 1)
    await door.write(add(1, "сервер-1 \N{GRINNING FACE}"))
    assert await door.read(lambda c: c.execute(select(rows.c.word)).scalar()) == "сервер-1 \N{GRINNING FACE}"


async def test_an_update_counts_the_rows_that_it_found_also_where_it_changed_nothing(door: Door) -> None:
    await door.write(add(1, "same"))
    assert await door.write(lambda c: c.execute(rows.update().values(word="same")).rowcount) == 1


async def test_check_names_server_setting_and_schema(url: str) -> None:
    door = await Door.open(url)
    with pytest.raises(SchemaOutdated, match="oma db upgrade"):
        await door.check()
    await asyncio.to_thread(schema.upgrade, url)
    assert "innodb_flush_log_at_trx_commit 1" in (sentence := await door.check())
    assert HEAD in sentence
    assert "oma:oma" not in sentence
    await door.close()


@pytest.mark.parametrize(
    "options",
    [("--innodb-flush-log-at-trx-commit=2",), ("--log-bin=binlog", "--sync-binlog=0")],
    ids=["flush", "binlog"],
)
async def test_a_server_that_may_forget_a_commit_is_refused_unless_insisted_on(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    require_part("MariaDB", await asyncio.to_thread(is_installed))
    server = running_mariadb(tmp_path, options=options)
    weak = await asyncio.to_thread(server.__enter__)
    url = weak.url(await asyncio.to_thread(weak.create_database))
    try:
        with pytest.raises(DatabaseUnavailable, match="accept_weak_durability"):
            await Door.open(url)
        door = await Door.open(url, accept_weak_durability=True)
        await door.write(create_rows)
        await door.write(add(1))
        await door.close()
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


async def test_a_server_whose_log_holds_statements_is_written_to_all_the_same(tmp_path: Path) -> None:
    require_part("MariaDB", await asyncio.to_thread(is_installed))
    server = running_mariadb(tmp_path, options=("--log-bin=binlog", "--sync-binlog=1", "--binlog-format=STATEMENT"))
    found = await asyncio.to_thread(server.__enter__)
    try:
        door = await Door.open(found.url(await asyncio.to_thread(found.create_database)))
        await door.write(create_rows)
        assert await door.write(add(1)) == 1
        await door.close()
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


async def test_a_server_that_goes_away_is_said_and_found_again(tmp_path: Path) -> None:
    require_part("MariaDB", await asyncio.to_thread(is_installed))
    first = running_mariadb(tmp_path)
    server = await asyncio.to_thread(first.__enter__)
    url = server.url(await asyncio.to_thread(server.create_database))
    door = await Door.open(url)
    await door.write(create_rows)
    await door.write(add(1))
    await door.read(numbers)
    await asyncio.to_thread(first.__exit__, None, None, None)

    results = await asyncio.gather(*(door.write(add(n)) for n in (2, 3)), door.read(numbers), return_exceptions=True)
    assert [type(result) for result in results] == [DatabaseUnavailable] * 3
    assert not any(result.outcome_unknown for result in results if isinstance(result, DatabaseUnavailable))
    with pytest.raises(DatabaseUnavailable):
        await Door.open(url)

    second = running_mariadb(tmp_path, port=server.port)
    await asyncio.to_thread(second.__enter__)
    try:
        assert await door.write(add(4)) == 4
        assert await door.read(numbers) == [1, 4]
        await door.close()
    finally:
        await asyncio.to_thread(second.__exit__, None, None, None)


@pytest.mark.parametrize(("zone", "hour"), [("Etc/GMT+5", 7), ("Europe/Berlin", 14), ("America/New_York", 8)])
async def test_local_times_of_an_existing_table_are_the_servers(
    url: str, mariadb_server: MariaDb, mariadb_database: str, zone: str, hour: int
) -> None:
    await asyncio.to_thread(
        mariadb_server.execute,
        "CREATE TABLE replication_jobs (id VARCHAR(64), started_at DATETIME, updated_at TIMESTAMP)",
        mariadb_database,
    )
    door = await Door.open(url, legacy_time_zone=zone)
    noon = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
    table = replication_jobs.c

    def write(connection: Connection) -> None:
        connection.execute(replication_jobs.insert().values(id="a", started_at=noon, updated_at=noon))

    await door.write(write)
    stored = await door.read(lambda c: c.execute(text("SELECT started_at, updated_at FROM replication_jobs")).one())
    assert (stored[0].hour, stored[1].hour) == (hour, 12)
    read = await door.read(lambda c: c.execute(select(table.started_at, table.updated_at)).one())
    assert tuple(read) == (noon, noon)
    await door.close()
