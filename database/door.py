"""The one door to the database: `read` in a few threads, `write` in one that commits what is waiting together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from database.commits import GroupCommit, Member
from database.durability import read_durability
from database.engine import Engines, build_engines, parse_url
from database.errors import DatabaseUnavailable, SchemaOutdated
from database.faults import FaultKind, judge_fault, to_error
from database.revision import HEAD, describe_revision_fault, read_revision
from database.times import LegacyTimes, find_local_columns, find_system_zone, set_legacy_times
from database.writer import Writer
from database.zones import find_zone, read_host_zone

T = TypeVar("T")

Work = Callable[[Connection], T]
Confirm = Callable[[Connection], bool]


class Door:
    """Belongs to the event loop in which it was opened.

    A function given to it does nothing but database work and may be run more than once: after a deadlock, a lost
    connection, or when another member of its batch met a database error. It must not commit or roll back.
    """

    def __init__(self, engines: Engines, readers: int, *, accept_weak_durability: bool) -> None:
        self._engines = engines
        self._accept_weak_durability = accept_weak_durability
        self._loop = asyncio.get_running_loop()
        self._arriving: list[Member] = []
        self._closed = False
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="database-reader")
        self._writer = Writer(GroupCommit(engines.writer, keep_connection=engines.in_memory), self._deliver)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        legacy_time_zone: str | None = None,
        accept_weak_durability: bool = False,
        readers: int = 4,
    ) -> Door:
        """Connects, reads the durability back and learns which columns hold local time; the schema is not looked at.

        `legacy_time_zone`: whose time stands in an existing installation's DATETIME columns; by default the server's.
        Raises `DatabaseUnavailable` with the reason.
        """
        engines = await asyncio.to_thread(build_engines, parse_url(url), readers)
        door = cls(engines, readers, accept_weak_durability=accept_weak_durability)
        try:
            await door.write(lambda connection: _get_ready(engines, connection, legacy_time_zone))
            await door.write(door._require_durability)
        except DatabaseUnavailable as error:
            await door.close()
            raise error.at(engines.place) from error
        except BaseException:
            await door.close()
            raise
        return door

    async def read(self, fn: Work[T]) -> T:
        """Runs `fn` in a transaction that sees one moment and can't write.

        Raises `DatabaseUnavailable`, `SchemaOutdated`, and whatever `fn` raises.
        """
        if self._closed:
            raise _closed()
        if self._engines.in_memory:
            return await self.write(lambda connection: _read_only(connection, fn))
        return await self._loop.run_in_executor(self._readers, self._read, fn)

    async def write(self, fn: Work[T], *, confirm: Confirm | None = None) -> T:
        """Runs `fn` in a savepoint of its own and returns its result after COMMIT has returned.

        Whatever `fn` raises undoes what `fn` wrote, and nothing else, and is raised here. Writes are done in the order
        of the calls. A caller that is cancelled stops waiting; its write is done all the same.

        `confirm` is asked, on a new connection, only if the answer to a COMMIT was lost: it reads back what `fn` wrote,
        by its ids. True: `write` returns the result; False: `fn` is run again. Without it such a write raises
        `DatabaseUnavailable` with `outcome_unknown`. In every other case an error means that nothing was written.
        """
        if self._closed:
            raise _closed()
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the door belongs to another event loop")
        future: asyncio.Future[Any] = self._loop.create_future()
        # Handed over when this turn of the loop ends, so that callers woken together share a commit.
        if not self._arriving:
            self._loop.call_soon(self._hand_over)
        self._arriving.append(Member(fn, confirm, future))
        result: T = await future
        return result

    async def check(self) -> str:
        """One sentence about the database; raises `DatabaseUnavailable` or `SchemaOutdated` with what to do."""
        if self._engines.in_memory:
            return f"{self._engines.place} answers."
        # Through the writer, so that it is the writing connection that is proven to be alive.
        sentence = await self.write(self._require_durability)
        fault = describe_revision_fault(await self.read(read_revision))
        if fault is not None:
            raise SchemaOutdated(fault)
        return f"{self._engines.place} answers ({sentence}), its schema is at {HEAD}."

    async def close(self) -> None:
        """Waits for what was handed over, then closes every connection. May be called twice."""
        if self._closed:
            return
        self._hand_over()
        self._closed = True
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        self._writer.close()
        self._readers.shutdown(wait=True)
        self._engines.dispose()

    def _hand_over(self) -> None:
        members, self._arriving = self._arriving, []
        if members:
            self._writer.submit(members)

    def _deliver(self, members: Sequence[Member]) -> None:
        # A loop that was closed has no waiters left.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_wake, members)

    def _read(self, fn: Work[T]) -> T:
        try:
            try:
                return self._read_once(fn)
            except DBAPIError as error:
                # A connection that a restarted server has forgotten is noticed only when it is used.
                if judge_fault(error).kind is not FaultKind.LOST or not error.connection_invalidated:
                    raise
            return self._read_once(fn)
        except DBAPIError as error:
            raise to_error(judge_fault(error), error) from error

    def _read_once(self, fn: Work[T]) -> T:
        with self._engines.reader.connect() as connection, connection.begin():
            return fn(connection)

    def _require_durability(self, connection: Connection) -> str:
        durability = read_durability(self._engines, connection)
        if durability.weakness is not None and not self._accept_weak_durability:
            raise DatabaseUnavailable(f"{self._engines.place}: {durability.weakness}")
        return durability.sentence


def _get_ready(engines: Engines, connection: Connection, legacy_time_zone: str | None) -> None:
    columns = find_local_columns(connection)
    # A setting that names no zone is a fault also where no column needs it.
    if legacy_time_zone is None and not columns:
        return
    zone = find_zone(legacy_time_zone, find_system_zone(connection), read_host_zone())
    for engine in (engines.writer, engines.reader):
        set_legacy_times(engine.dialect, LegacyTimes(zone, columns))


def _read_only(connection: Connection, fn: Work[T]) -> T:
    connection.exec_driver_sql("PRAGMA query_only=ON")
    try:
        return fn(connection)
    finally:
        connection.exec_driver_sql("PRAGMA query_only=OFF")


def _wake(members: Sequence[Member]) -> None:
    for member in members:
        future: asyncio.Future[Any] = member.receiver
        if future.done():
            continue
        if isinstance(member.error, StopIteration):
            # The one exception that a future does not take.
            future.set_exception(RuntimeError(f"a function given to the door raised {member.error!r}"))
        elif member.error is not None:
            future.set_exception(member.error)
        else:
            future.set_result(member.result)


def _closed() -> DatabaseUnavailable:
    return DatabaseUnavailable("the database was closed: the program is stopping")
