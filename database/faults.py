"""What a database error means: one pure table from the servers' codes to what the door does about it.

Sources: SQLite's result codes (https://www.sqlite.org/rescode.html), MariaDB's error codes
(https://mariadb.com/kb/en/mariadb-error-codes/), PyMySQL's client codes (`pymysql.constants.CR`).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.exc import DBAPIError, IntegrityError

from database.errors import DatabaseUnavailable, SchemaOutdated


class FaultKind(StrEnum):
    LOST = "lost"
    """The connection is gone; what was not yet committed is rolled back by the server."""
    DEADLOCK = "deadlock"
    """InnoDB gave up the whole transaction in favour of another; the same again may pass."""
    LOCKED = "locked"
    """Somebody else holds what is wanted for longer than we wait."""
    DISK_FULL = "disk_full"
    SCHEMA = "schema"
    """A table or column is not there."""
    CONSTRAINT = "constraint"
    """The statement, and nothing else, was refused by a key or a check."""
    STATEMENT = "statement"
    """The statement is wrong in itself; the caller's own fault."""
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Fault:
    """A classified error; `text` are the database's own words, without the statement and its values."""

    kind: FaultKind
    code: int | None
    text: str


_SQLITE_PRIMARY_CODE_MASK = 0xFF
_SQLITE = {
    sqlite3.SQLITE_BUSY: FaultKind.LOCKED,
    sqlite3.SQLITE_LOCKED: FaultKind.LOCKED,
    sqlite3.SQLITE_FULL: FaultKind.DISK_FULL,
    sqlite3.SQLITE_CONSTRAINT: FaultKind.CONSTRAINT,
    sqlite3.SQLITE_MISMATCH: FaultKind.STATEMENT,
    sqlite3.SQLITE_RANGE: FaultKind.STATEMENT,
    sqlite3.SQLITE_TOOBIG: FaultKind.STATEMENT,
    sqlite3.SQLITE_MISUSE: FaultKind.STATEMENT,
}
_MARIADB = {
    1020: FaultKind.DEADLOCK,  # record has changed since last read (innodb_snapshot_isolation)
    1205: FaultKind.LOCKED,  # lock wait timeout
    1213: FaultKind.DEADLOCK,
    1021: FaultKind.DISK_FULL,
    1114: FaultKind.DISK_FULL,  # the table is full
    1146: FaultKind.SCHEMA,  # no such table
    1054: FaultKind.SCHEMA,  # unknown column
    1053: FaultKind.LOST,  # server shutdown in progress
    1077: FaultKind.LOST,
    1079: FaultKind.LOST,
    1152: FaultKind.LOST,
    1158: FaultKind.LOST,
    1159: FaultKind.LOST,
    1160: FaultKind.LOST,
    1161: FaultKind.LOST,
    1184: FaultKind.LOST,
    1317: FaultKind.LOST,  # query execution was interrupted
    1927: FaultKind.LOST,  # connection was killed
    2002: FaultKind.LOST,
    2003: FaultKind.LOST,
    2006: FaultKind.LOST,
    2013: FaultKind.LOST,
    2014: FaultKind.LOST,
    2027: FaultKind.LOST,
    2055: FaultKind.LOST,
    4031: FaultKind.LOST,
}
_MARIADB_STATEMENT_CLASSES = frozenset({"DataError", "ProgrammingError", "NotSupportedError"})
_NO_SPACE = ("errcode: 28", "no space left")
_CLIENT_CODES_FROM = 2000
_SCHEMA_WORDS = ("no such table", "no such column", "has no column named")


def judge_fault(error: DBAPIError) -> Fault:
    """What happened, from the driver's own exception."""
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return _judge_sqlite(original)
    code, text = _code_and_text(original)
    lowered = text.lower()
    if any(words in lowered for words in _NO_SPACE):
        return Fault(FaultKind.DISK_FULL, code, text)
    kind = _MARIADB.get(code) if code is not None else None
    if kind is not None:
        return Fault(kind, code, text)
    if isinstance(error, IntegrityError):
        return Fault(FaultKind.CONSTRAINT, code, text)
    if error.connection_invalidated or type(original).__name__ == "InterfaceError":
        return Fault(FaultKind.LOST, code, text)
    if type(original).__name__ in _MARIADB_STATEMENT_CLASSES:
        return Fault(FaultKind.STATEMENT, code, text)
    return Fault(FaultKind.OTHER, code, text)


def _judge_sqlite(original: sqlite3.Error) -> Fault:
    # Python's own complaints (a closed connection, a wrong parameter) carry no result code.
    code: int | None = getattr(original, "sqlite_errorcode", None)
    text = str(original)
    if code is None:
        kind = FaultKind.STATEMENT if isinstance(original, sqlite3.ProgrammingError) else FaultKind.OTHER
        return Fault(kind, None, text)
    primary = code & _SQLITE_PRIMARY_CODE_MASK
    if primary == sqlite3.SQLITE_ERROR:
        missing = any(words in text for words in _SCHEMA_WORDS)
        return Fault(FaultKind.SCHEMA if missing else FaultKind.STATEMENT, code, text)
    return Fault(_SQLITE.get(primary, FaultKind.OTHER), code, text)


def _code_and_text(original: BaseException | None) -> tuple[int | None, str]:
    args: tuple[object, ...] = original.args if original is not None else ()
    code = args[0] if args and isinstance(args[0], int) else None
    text = str(args[1]) if len(args) > 1 else str(original)
    return code, text


def commit_is_definite(fault: Fault) -> bool:
    """True: a COMMIT that failed like this certainly wrote nothing; else its outcome is unknown.

    SQLite in WAL mode commits with the last frame that it writes: a lock, a full disk or a deferred constraint come
    before it; an I/O error may come after it. InnoDB answers 1213 (1205) when it has rolled back.
    """
    return fault.kind in {FaultKind.DEADLOCK, FaultKind.LOCKED, FaultKind.DISK_FULL, FaultKind.CONSTRAINT}


def to_error(fault: Fault, error: DBAPIError) -> Exception:
    """The exception that a caller sees: ours where the database failed, the driver's where the statement did."""
    match fault.kind:
        case FaultKind.CONSTRAINT | FaultKind.STATEMENT:
            return error
        case FaultKind.SCHEMA:
            return SchemaOutdated(f"{fault.text}: the tables do not fit this program; run `oma db upgrade`")
        case FaultKind.DISK_FULL:
            return DatabaseUnavailable(
                f"the database's disk is full ({fault.text}); nothing was written; make room, then try again",
                disk_full=True,
            )
        case FaultKind.LOCKED:
            return DatabaseUnavailable(f"another program holds the database's locks ({fault.text}); try again")
        case FaultKind.DEADLOCK:
            return DatabaseUnavailable(f"the database kept giving way to another program ({fault.text}); try again")
        case FaultKind.LOST:
            return DatabaseUnavailable(f"the database does not answer ({fault.text})")
        case FaultKind.OTHER:
            return DatabaseUnavailable(f"the database failed ({fault.text})")
