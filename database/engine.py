"""Connections to SQLite and MariaDB, set up so that a COMMIT that has returned is on disk.

Two engines per database: the writer's, whose transactions see what others have committed and take their locks at the
start (SQLite) or as they go (MariaDB, READ COMMITTED), and the readers', whose transactions can't write and see one
moment only (SQLite's snapshot; MariaDB, REPEATABLE READ).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import create_engine, event
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool, StaticPool

from database.errors import DatabaseUnavailable

BUSY_TIMEOUT_S = 10
"""How long a statement waits for another program's lock."""
CONNECT_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 60
"""A server that is silent for longer is taken for lost; far more than `BUSY_TIMEOUT_S`."""

WRITER_LOCK = "oma_writer_lock"
"""Key in `dbapi_connection`'s record: the name of the advisory lock that a MariaDB writer's session holds."""

_SQL_MODE = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
_MARIADB_DRIVERS = frozenset({"mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"})


@dataclass(frozen=True, slots=True)
class Engines:
    """Both ways into one database. In memory they are the same, over the one connection that there can be."""

    url: URL
    writer: Engine
    reader: Engine

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def in_memory(self) -> bool:
        return self.writer is self.reader

    @property
    def place(self) -> str:
        """Where the database is, for sentences; without user and password."""
        return describe_place(self.url)

    def dispose(self) -> None:
        self.reader.dispose()
        self.writer.dispose()


def parse_url(url: str) -> URL:
    """`sqlite://…` or `mysql+pymysql://…`; raises `DatabaseUnavailable` with what is allowed."""
    allowed = "use sqlite:////path/to/oma.db or mysql+pymysql://user:password@host/database"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise DatabaseUnavailable(f"database.url is not a database URL; {allowed}") from error
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        return parsed
    if parsed.drivername in _MARIADB_DRIVERS:
        if not parsed.database:
            raise DatabaseUnavailable(f"database.url names no database on the server; {allowed}")
        # One name for all, so that what is said about "mysql" in the tables holds.
        return parsed.set(drivername="mysql+pymysql").update_query_dict({"charset": "utf8mb4"})
    raise DatabaseUnavailable(f"database.url asks for {parsed.drivername!r}; {allowed}")


def is_in_memory(url: URL) -> bool:
    return url.get_backend_name() == "sqlite" and url.database in {None, "", ":memory:"}


def describe_place(url: URL) -> str:
    if url.get_backend_name() == "sqlite":
        return "SQLite in memory" if is_in_memory(url) else f"SQLite {url.database}"
    host = url.host or "localhost"
    return f"MariaDB {host}{f':{url.port}' if url.port else ''}/{url.database}"


def build_engines(url: URL, readers: int) -> Engines:
    """Connects to nothing yet."""
    if is_in_memory(url):
        engine = _build_sqlite(url, poolclass=StaticPool)
        event.listen(engine, "connect", _set_up_sqlite_writer)
        event.listen(engine, "begin", _begin_immediate)
        return Engines(url, engine, engine)
    if url.get_backend_name() == "sqlite":
        writer = _build_sqlite(url, poolclass=QueuePool, pool_size=1, max_overflow=0)
        event.listen(writer, "connect", _set_up_sqlite_writer)
        event.listen(writer, "begin", _begin_immediate)
        reader = _build_sqlite(url, poolclass=QueuePool, pool_size=readers, max_overflow=0)
        event.listen(reader, "connect", _set_up_sqlite_reader)
        event.listen(reader, "begin", _begin)
        return Engines(url, writer, reader)
    writer = _build_mariadb(url, 1)
    event.listen(writer, "connect", _set_up_mariadb_writer)
    reader = _build_mariadb(url, readers)
    event.listen(reader, "connect", _set_up_mariadb_reader)
    return Engines(url, writer, reader)


def _build_sqlite(url: URL, **pool: Any) -> Engine:
    # The driver stays in autocommit and we say BEGIN ourselves: left to itself it opens the transaction only before the
    # first INSERT, so that a savepoint released before it commits on its own.
    return create_engine(
        url,
        connect_args={"isolation_level": None, "check_same_thread": False, "timeout": float(BUSY_TIMEOUT_S)},
        **pool,
    )


def _build_mariadb(url: URL, size: int) -> Engine:
    return create_engine(
        url,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": ANSWER_TIMEOUT_S,
            "write_timeout": ANSWER_TIMEOUT_S,
        },
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
    )


def _begin_immediate(connection: Connection) -> None:
    # The write lock at once: a transaction that reads first and writes later can't be given it by waiting.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _set_up_sqlite_writer(connection: Any, _record: Any) -> None:
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        # Kept in the file; asked only once, because the change needs the file for itself.
        connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _set_up_sqlite_reader(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA query_only=ON")


def _set_up_mariadb_session(connection: Any) -> Any:
    cursor = connection.cursor()
    cursor.execute(
        f"SET SESSION time_zone='+00:00', sql_mode='{_SQL_MODE}', "
        f"innodb_lock_wait_timeout={BUSY_TIMEOUT_S}, lock_wait_timeout={BUSY_TIMEOUT_S}"
    )
    return cursor


def _set_up_mariadb_writer(connection: Any, record: Any) -> None:
    cursor = _set_up_mariadb_session(connection)
    cursor.execute("SELECT @@log_bin AND @@binlog_format = 'STATEMENT'")
    # InnoDB refuses to write under READ COMMITTED where the binary log holds statements (error 1665).
    level = "REPEATABLE READ" if cursor.fetchone()[0] else "READ COMMITTED"
    cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
    # Held as long as the session lives: whoever gets it afterwards knows that a COMMIT of this session is over.
    record.info[WRITER_LOCK] = name = f"oma-writer-{uuid4().hex}"
    cursor.execute("SELECT GET_LOCK(%s, 0)", (name,))
    cursor.close()
    connection.commit()


def _set_up_mariadb_reader(connection: Any, _record: Any) -> None:
    cursor = _set_up_mariadb_session(connection)
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    cursor.close()
    connection.commit()
