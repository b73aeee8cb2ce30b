"""What is waiting is committed together, and nobody pays for another's fault."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pymysql
import pytest
from sqlalchemy import Connection, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, StatementError

from database.door import Door
from database.errors import DatabaseUnavailable, SchemaOutdated
from tests.unit.database.rows import Unwanted, add, add_and_raise, numbers, rows


async def test_a_write_returns_the_functions_result_and_is_seen_by_the_next_read(door: Door) -> None:
    assert await door.write(add(7)) == 7
    assert await door.read(numbers) == [7]


async def test_what_waits_together_is_committed_once(door: Door, commits: list[str]) -> None:
    assert await asyncio.gather(*(door.write(add(n)) for n in range(20))) == list(range(20))
    assert len(commits) == 1
    assert await door.read(numbers) == list(range(20))


async def test_what_arrives_during_a_commit_waits_for_the_next_one_together(door: Door, commits: list[str]) -> None:
    started, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: Connection) -> None:
        loop.call_soon_threadsafe(started.set)
        go_on.wait(30)
        add(0)(connection)

    first = asyncio.create_task(door.write(slow))
    await started.wait()
    others = [asyncio.create_task(door.write(add(n))) for n in range(1, 6)]
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(first, *others)
    assert len(commits) == 2


async def test_nobody_is_told_before_the_commit(door: Door, commits: list[str]) -> None:
    async def write(number: int) -> int:
        await door.write(add(number))
        return len(commits)

    assert set(await asyncio.gather(*(write(n) for n in range(5)))) == {1}


async def test_a_members_own_exception_undoes_its_own_work_only(door: Door, commits: list[str]) -> None:
    results = await asyncio.gather(
        door.write(add(1)), door.write(add_and_raise(2)), door.write(add(3)), return_exceptions=True
    )
    assert results[0] == 1
    assert isinstance(results[1], Unwanted)
    assert results[2] == 3
    assert len(commits) == 1
    assert await door.read(numbers) == [1, 3]


async def test_alone_too(door: Door) -> None:
    with pytest.raises(Unwanted):
        await door.write(add_and_raise(2))
    assert await door.read(numbers) == []


async def test_a_database_error_of_one_does_not_lose_the_others(door: Door) -> None:
    await door.write(add(2))
    results = await asyncio.gather(door.write(add(1)), door.write(add(2)), door.write(add(3)), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], IntegrityError)
    assert results[2] == 3
    assert await door.read(numbers) == [1, 2, 3]


async def test_an_error_that_a_member_turns_into_its_own_undoes_its_work_only(door: Door) -> None:
    await door.write(add(2))

    def write(connection: Connection) -> None:
        add(10)(connection)
        try:
            add(2)(connection)
        except IntegrityError as error:
            raise Unwanted from error

    results = await asyncio.gather(door.write(add(1)), door.write(write), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], Unwanted)
    assert await door.read(numbers) == [1, 2]


async def test_a_member_may_live_with_a_refused_key(door: Door) -> None:
    await door.write(add(2))

    def write(connection: Connection) -> str:
        try:
            add(2)(connection)
        except IntegrityError:
            add(20)(connection)
        return "done"

    assert tuple(await asyncio.gather(door.write(add(1)), door.write(write))) == (1, "done")
    assert await door.read(numbers) == [1, 2, 20]


async def test_a_value_that_is_refused_before_it_is_sent_goes_to_its_caller(door: Door) -> None:
    def write(connection: Connection) -> None:
        connection.execute(text("INSERT INTO rows (id) VALUES (:id)"), {"other": 1})

    results = await asyncio.gather(door.write(add(1)), door.write(write), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], StatementError)
    assert await door.read(numbers) == [1]


async def test_a_missing_table_says_what_to_do(door: Door) -> None:
    def use(connection: Connection) -> None:
        connection.execute(text("SELECT * FROM not_there"))

    for call in (door.read, door.write):
        with pytest.raises(SchemaOutdated, match="oma db upgrade"):
            await call(use)


async def test_writes_are_done_in_the_order_of_the_calls(door: Door) -> None:
    done: list[int] = []

    def note(number: int) -> Callable[[Connection], None]:
        def write(connection: Connection) -> None:
            add(number)(connection)
            done.append(number)

        return write

    await asyncio.gather(*(door.write(note(n)) for n in range(500)))
    assert done == list(range(500))


async def test_a_member_sees_what_those_before_it_wrote(door: Door) -> None:
    results = await asyncio.gather(
        door.write(add(1)), door.write(add_and_raise(2)), door.write(numbers), return_exceptions=True
    )
    assert results[2] == [1]


async def test_a_cancelled_caller_breaks_nothing(door: Door) -> None:
    tasks = [asyncio.create_task(door.write(add(n))) for n in range(5)]
    await asyncio.sleep(0)
    tasks[2].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[2], asyncio.CancelledError)
    assert [results[n] for n in (0, 1, 3, 4)] == [0, 1, 3, 4]
    assert await door.write(add(9)) == 9
    assert await door.read(numbers) == [0, 1, 2, 3, 4, 9]


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_a_function_that_ends_the_transaction_is_refused(door: Door, ending: str) -> None:
    def write(connection: Connection) -> None:
        add(2)(connection)
        getattr(connection, ending)()

    results = await asyncio.gather(door.write(add(1)), door.write(write), door.write(add(3)), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], RuntimeError)
    assert results[2] == 3
    assert await door.read(numbers) == [1, 3]


async def test_savepoints_of_a_functions_own_work(door: Door) -> None:
    def write(connection: Connection) -> None:
        add(1)(connection)
        nested = connection.begin_nested()
        add(2)(connection)
        nested.rollback()
        with connection.begin_nested():
            add(3)(connection)

    await asyncio.gather(door.write(write), door.write(add(4)))
    assert await door.read(numbers) == [1, 3, 4]


async def test_an_exception_that_no_future_takes_still_reaches_the_caller(door: Door) -> None:
    def write(_connection: Connection) -> None:
        raise StopIteration

    with pytest.raises(RuntimeError, match="StopIteration"):
        await door.write(write)


async def test_closing_waits_for_what_was_handed_over(url: str, door: Door) -> None:
    written = [asyncio.create_task(door.write(add(n))) for n in range(300)]
    await asyncio.sleep(0)
    await door.close()
    assert await asyncio.gather(*written) == list(range(300))
    with pytest.raises(DatabaseUnavailable, match="closed"):
        await door.write(add(1000))
    with pytest.raises(DatabaseUnavailable, match="closed"):
        await door.read(numbers)
    await door.close()
    if url != "sqlite://":
        again = await Door.open(url)
        assert await again.read(numbers) == list(range(300))
        await again.close()


async def test_a_read_cannot_write(door: Door) -> None:
    with pytest.raises(DatabaseUnavailable):
        await door.read(add(1))
    assert await door.read(numbers) == []
    assert await door.write(add(2)) == 2


async def test_a_read_sees_one_moment(url: str, door: Door) -> None:
    if url == "sqlite://":
        return  # one connection: nobody else can write between two statements
    loop = asyncio.get_running_loop()

    def look(connection: Connection) -> tuple[list[int], list[int]]:
        before = numbers(connection)
        asyncio.run_coroutine_threadsafe(door.write(add(5)), loop).result()
        return before, numbers(connection)

    assert await door.read(look) == ([], [])
    assert await door.read(numbers) == [5]


async def test_reads_go_side_by_side(url: str, door: Door) -> None:
    if url == "sqlite://":
        return
    together = threading.Barrier(3, timeout=30)

    def look(connection: Connection) -> int:
        connection.execute(select(rows)).all()
        return together.wait()

    assert sorted(await asyncio.gather(*(door.read(look) for _ in range(3)))) == [0, 1, 2]


async def test_a_deadlock_that_only_the_caller_saw_is_a_deadlock_all_the_same(door: Door) -> None:
    """A raw driver's error would end in the caller's face as a fault of the program."""
    tried: list[int] = []

    def work(_connection: Connection) -> None:
        tried.append(1)
        raise OperationalError("SELECT 1", {}, pymysql.err.OperationalError(1213, "Deadlock found"))

    with pytest.raises(DatabaseUnavailable, match="kept giving way"):
        await door.write(work)
    assert len(tried) > 1
    assert await door.read(lambda connection: connection.exec_driver_sql("SELECT 1").scalar_one()) == 1
