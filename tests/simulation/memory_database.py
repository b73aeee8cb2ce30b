"""The real store on SQLite in memory: the real group commit without its thread, on virtual time.

All processes of a world share one connection, which is the database; each has a door of its own, which dies with it:
what it had not committed then is lost, what was committed and not told stays.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar, cast

from sqlalchemy import create_engine
from sqlalchemy.engine import Connection, RootTransaction
from sqlalchemy.pool import StaticPool

from database.commits import Attempt, Ending, GroupCommit, Member
from database.engine import Engines, build_engines, parse_url
from database.errors import DatabaseUnavailable
from database.tables import metadata
from tests.simulation.virtual_time import Life, context_of

T = TypeVar("T")

COMMIT_S = 0.002
"""How long a commit takes; who is waiting meanwhile shares the next one."""


class CommitFault(StrEnum):
    LOST_APPLIED = "lost_applied"
    """COMMIT is done, its answer is lost."""
    LOST_UNDONE = "lost_undone"
    """COMMIT never arrived, and nobody can tell."""


class MemoryDatabase:
    """The database of one world; the engine and its compiled statements are kept from world to world."""

    _engines: Engines | None = None
    _empty: bytes | None = None
    _reader: Connection | None = None
    """Over the same connection, with an engine of its own, which says no BEGIN by itself."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.clock_offset_s = 0.0
        self.is_away = False
        """It cannot be reached."""
        if MemoryDatabase._engines is None:
            MemoryDatabase._engines = build_engines(parse_url("sqlite://"), 1)
            with MemoryDatabase._engines.writer.begin() as connection:
                metadata.create_all(connection)
            MemoryDatabase._empty = self._raw().serialize()
            reading = create_engine("sqlite://", creator=self._raw, poolclass=StaticPool)
            MemoryDatabase._reader = reading.connect()
        self.engine = MemoryDatabase._engines.writer
        raw = self._raw()
        assert MemoryDatabase._empty is not None
        raw.deserialize(MemoryDatabase._empty)
        # The database's own clock, by which leases are measured, follows the world's.
        self._connection = raw
        raw.create_function("strftime", 2, lambda _format, _when: self._stamp(now()))

    def _raw(self) -> sqlite3.Connection:
        assert MemoryDatabase._engines is not None
        with MemoryDatabase._engines.writer.connect() as connection:
            raw: Any = connection.connection.dbapi_connection
        return cast("sqlite3.Connection", raw)

    def _stamp(self, now: datetime) -> str:
        moment = datetime.fromtimestamp(now.timestamp() + self.clock_offset_s, now.tzinfo)
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]

    def run(self, fn: Callable[[Connection], T]) -> T:
        """At once, outside of every process: for seeding, looking, and what other programs write."""
        with self.engine.begin() as connection:
            return fn(connection)

    def look(self, fn: Callable[[Connection], T]) -> T:
        """The same for what only reads: nothing that it might write stays."""
        reader = MemoryDatabase._reader
        assert reader is not None
        self._connection.execute("BEGIN")
        try:
            return fn(reader)
        finally:
            self._connection.execute("ROLLBACK")

    def has_active_jobs(self) -> bool:
        found = self._connection.execute("SELECT 1 FROM oma_jobs WHERE state IN ('queued', 'running') LIMIT 1")
        return found.fetchone() is not None

    def last_event(self) -> int:
        (seq,) = self._connection.execute("SELECT MAX(seq) FROM oma_events").fetchone()
        return int(seq or 0)

    def has_markers_to_sweep(self) -> bool:
        query = "SELECT 1 FROM oma_actions WHERE kind = 'clear_marker' AND state = 'STARTED' LIMIT 1"
        return self._connection.execute(query).fetchone() is not None

    def copy(self) -> bytes:
        return self._raw().serialize()

    def restore(self, copy: bytes) -> None:
        """What a restored backup is: everything as it was then."""
        self._raw().deserialize(copy)


class _Commits(GroupCommit):
    """The real one; `faults` strike its next commits, one each."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.faults: list[tuple[CommitFault, Callable[[], None]]] = []

    def _commit(self, transaction: RootTransaction) -> Attempt:
        if not self.faults:
            return super()._commit(transaction)
        fault, struck = self.faults.pop(0)
        struck()
        if fault is CommitFault.LOST_APPLIED:
            transaction.commit()
        else:
            transaction.rollback()
        return Attempt(Ending.UNKNOWN, None, DatabaseUnavailable("the connection broke"))


class MemoryDoor:
    """One process's way to the database, as `database.door.Door` is."""

    def __init__(self, database: MemoryDatabase, life: Life) -> None:
        self._database = database
        self._life = life
        self._loop = asyncio.get_running_loop()
        self._arriving: list[Member] = []
        self._committing = False
        self._commits = _Commits(database.engine, keep_connection=True)
        self._context = context_of(life)

    def lose_commit(self, fault: CommitFault, struck: Callable[[], None]) -> None:
        """The answer to the next COMMIT gets lost."""
        self._commits.faults.append((fault, struck))

    def close(self) -> None:
        """Only after the world has come to its end."""
        with suppress(Exception):
            self._commits.close()

    async def read(self, fn: Callable[[Connection], T]) -> T:
        self._life.require()
        await asyncio.sleep(0)
        self._require_there()
        return self._database.look(fn)

    async def write(self, fn: Callable[[Connection], T], *, confirm: Callable[[Connection], bool] | None = None) -> T:
        self._life.require()
        self._require_there()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._arriving.append(Member(fn, confirm, future))
        if not self._committing:
            self._committing = True
            self._loop.call_later(COMMIT_S, self._commit, context=self._context)
        result: T = await future
        return result

    async def check(self) -> str:
        self._require_there()
        return "SQLite in memory answers."

    def _commit(self) -> None:
        members, self._arriving = self._arriving, []
        if self._database.is_away:
            for member in members:
                member.error = DatabaseUnavailable("the server has gone away")
            self._tell(members)
        else:
            self._commits.run(members, self._tell)
        if self._arriving:
            self._loop.call_later(COMMIT_S, self._commit, context=self._context)
        else:
            self._committing = False

    def _tell(self, members: Sequence[Member]) -> None:
        """A turn of the loop after the commit: between the two the process may die."""
        self._loop.call_soon(_wake, list(members), context=self._context)

    def _require_there(self) -> None:
        if self._database.is_away:
            raise DatabaseUnavailable("the server has gone away")


def _wake(members: Sequence[Member]) -> None:
    for member in members:
        future: asyncio.Future[Any] = member.receiver
        if future.done():
            continue
        if member.error is not None:
            future.set_exception(member.error)
        else:
            future.set_result(member.result)
