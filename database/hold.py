"""One program of a kind per database, wherever it listens: held as long as its process lives, and free when it dies.

Beside an SQLite file a lock on a file of its own (flock(2)), which the kernel gives back whatever becomes of the
process. On MariaDB an advisory lock of a session that does nothing else; a session of a machine that is gone would hold
it for hours, so that the server is told to end one that has not been heard of for a while.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from structlog import get_logger

from database.engine import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, is_in_memory, parse_url
from database.errors import DatabaseUnavailable
from database.faults import judge_fault, to_error

log = get_logger(__name__)
HELD_UNHEARD_S: Final = 30
"""So long a MariaDB server keeps the hold of somebody who is not heard of."""
LOOK_S: Final = 1.0
"""Whoever holds a database looks after it at least so often."""


ONLY: Final = 1
"""The taking of what cannot be lost."""


class Hold(Protocol):
    """Its methods block, and belong into one thread at a time."""

    def take(self) -> int | None:
        """Which taking it is ours by from now on, or still: asked again and again. None: another program has it.

        Another number than before: it was lost in between, and somebody else may have had it. Raises
        `DatabaseUnavailable` where that cannot be told, `OSError` where the file cannot be made.
        """

    def is_ours(self, taking: int) -> bool:
        """Whether it has been ours without a break since that taking, asked of the server now. Takes nothing.

        False also where the server does not answer: with its session such a hold is gone for good.
        """

    def release(self) -> None:
        """Twice is fine."""


def build_hold(url: str, program: str) -> Hold:
    """Touches nothing yet. Raises `DatabaseUnavailable` for an address that is none."""
    parsed = parse_url(url)
    if parsed.get_backend_name() != "sqlite":
        return _SessionHold(parsed, program)
    is_file = not is_in_memory(parsed) and not str(parsed.database).startswith("file:")
    return _FileHold(Path(f"{parsed.database}.{program}.lock")) if is_file else _NoHold()


class _NoHold:
    """In memory a database has one program anyway."""

    def take(self) -> int:
        return ONLY

    def is_ours(self, taking: int) -> bool:
        return taking == ONLY

    def release(self) -> None:
        """Nothing is held."""


class _FileHold:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def take(self) -> int | None:
        if self._file is not None:
            return ONLY
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(file)
            if isinstance(error, BlockingIOError):
                return None
            raise
        self._file = file
        return ONLY

    def is_ours(self, taking: int) -> bool:
        return self._file is not None and taking == ONLY

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


class _SessionHold:
    def __init__(self, url: URL, program: str) -> None:
        # Names of such locks are the server's, not the database's, and end after 64 characters.
        self._name = f"{program}-{hashlib.sha256(str(url.database).encode()).hexdigest()[:24]}"
        timeouts = {"read_timeout": ANSWER_TIMEOUT_S, "write_timeout": ANSWER_TIMEOUT_S}
        self._engine = create_engine(
            url,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, **timeouts},
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            pool_reset_on_return=None,
        )
        self._connection: Connection | None = None
        self._session: int | None = None
        self._taking = 0

    def take(self) -> int | None:
        if self.is_ours(self._taking):
            return self._taking
        try:
            if not self._begin():
                return None
        except DBAPIError as error:
            raise to_error(judge_fault(error), error) from error
        self._taking += 1
        return self._taking

    def is_ours(self, taking: int) -> bool:
        if self._connection is None or taking != self._taking:
            return False
        try:
            if self._ask(self._connection, "SELECT IS_USED_LOCK(:name) = CONNECTION_ID()"):
                return True
        except DBAPIError as error:
            log.warning("The session that holds the database is gone.", reason=judge_fault(error).text)
        self.release()
        return False

    def _begin(self) -> bool:
        connection = self._engine.connect()
        try:
            connection.exec_driver_sql(f"SET SESSION wait_timeout = {HELD_UNHEARD_S}")
            is_ours = self._get_lock(connection)
            if is_ours:
                self._session = self._ask(connection, "SELECT CONNECTION_ID()")
            else:
                self._end_former(connection)
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        if is_ours:
            self._connection = connection
        else:
            connection.close()
        return is_ours

    def _get_lock(self, connection: Connection) -> bool:
        answer = self._ask(connection, "SELECT GET_LOCK(:name, 0)")
        if answer is None:
            raise DatabaseUnavailable("the server does not say who holds the database")
        return bool(answer)

    def _end_former(self, connection: Connection) -> None:
        """Our own former session may hold it still, where the server does not know yet that its connection is gone.

        Raises `DatabaseUnavailable` then: it is free soon.
        """
        holder = self._ask(connection, "SELECT IS_USED_LOCK(:name)")
        if holder is not None and holder == self._session:
            connection.exec_driver_sql(f"KILL {holder}")
            raise DatabaseUnavailable("the former session that holds the database is being ended")

    def _ask(self, connection: Connection, statement: str) -> int | None:
        answer = connection.execute(text(statement), {"name": self._name} if ":name" in statement else {}).scalar()
        return None if answer is None else int(answer)

    def release(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.invalidate()
            connection.close()
