"""The writer's one connection: opened when needed, dropped when it can't be trusted, and never two at a time.

A MariaDB session holds an advisory lock of its own as long as it lives. After a lost connection the successor ends the
old session by that lock's holder and waits until it is gone: only then can no COMMIT of it arrive any more, and
what is read afterwards is final.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from database.engine import BUSY_TIMEOUT_S, WRITER_LOCK
from database.errors import DatabaseUnavailable


class WriterSession:
    """`keep`: the connection is the database (in memory) and is never given up."""

    def __init__(self, engine: Engine, *, keep: bool) -> None:
        self._engine = engine
        self._keep = keep
        self._connection: Connection | None = None
        self._lock: str | None = None
        self._old_lock: str | None = None

    def connect(self) -> Connection:
        """Raises `DBAPIError`, or `DatabaseUnavailable` while a lost session may still be alive."""
        if self._connection is None:
            connection = self._engine.connect()
            try:
                if self._old_lock is not None:
                    _end_session(connection, self._old_lock)
            except BaseException:
                connection.invalidate()
                connection.close()
                raise
            self._old_lock = None
            self._lock = connection.connection.info.get(WRITER_LOCK)
            self._connection = connection
        return self._connection

    def set_savepoint(self) -> None:
        """Raises `DBAPIError`, like the two below."""
        self._say("SAVEPOINT oma_member")

    def undo_to_savepoint(self) -> None:
        self._say("ROLLBACK TO SAVEPOINT oma_member")

    def release_savepoint(self) -> None:
        # MariaDB's next savepoint of the name takes this one's place, which spares a round trip.
        if self._engine.dialect.name == "sqlite":
            self._say("RELEASE SAVEPOINT oma_member")

    def _say(self, statement: str) -> None:
        # Straight to the driver: through SQLAlchemy a savepoint would cost as much as the write that it surrounds.
        connection = self.connect()
        raw: Any = connection.connection.dbapi_connection
        driver = connection.dialect.loaded_dbapi
        cursor = raw.cursor()
        try:
            cursor.execute(statement)
        except driver.Error as error:
            raise DBAPIError.instance(statement, None, error, driver.Error, dialect=connection.dialect) from error
        finally:
            cursor.close()

    def undo(self, *, lost: bool) -> None:
        """Rolls back what is open; the connection goes if it was lost or can't even do that."""
        connection = self._connection
        if connection is None:
            return
        driver = connection.dialect.loaded_dbapi
        try:
            connection.rollback()
            if not connection.invalidated:
                # Also where SQLAlchemy holds the transaction for ended.
                connection.connection.rollback()
        except (DBAPIError, driver.Error):
            lost = True
        if lost or connection.invalidated:
            self.lose()

    def lose(self) -> None:
        """The next `connect` opens a new one, and ends this one's session first."""
        connection = self._connection
        if connection is None or self._keep:
            return
        self._connection = None
        self._old_lock = self._lock
        if not connection.invalidated:
            connection.invalidate()
        connection.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _end_session(connection: Connection, lock: str) -> None:
    holder = connection.execute(text("SELECT IS_USED_LOCK(:lock)"), {"lock": lock}).scalar()
    if holder is not None:
        # It may have gone by itself just now, which is as good.
        with suppress(DBAPIError):
            connection.exec_driver_sql(f"KILL {int(holder)}")
    got = connection.execute(
        text("SELECT GET_LOCK(:lock, :seconds)"), {"lock": lock, "seconds": BUSY_TIMEOUT_S}
    ).scalar()
    connection.execute(text("SELECT RELEASE_LOCK(:lock)"), {"lock": lock})
    connection.rollback()
    if got != 1:
        raise DatabaseUnavailable(
            "a session of ours that was cut off is still alive on the server, so that what it does is not final"
        )
