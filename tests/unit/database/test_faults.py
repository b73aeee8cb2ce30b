"""What an error of the driver means for the door."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pymysql
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy.exc import DBAPIError

import migrations
from database.errors import DatabaseUnavailable
from database.faults import FaultKind, commit_is_definite, judge_fault, to_error
from database.revision import HEAD, describe_revision_fault

INSERT = "INSERT INTO oma_jobs (id, secret) VALUES (:id, :secret)"


def wrapped(original: Exception, driver: type[Exception]) -> DBAPIError:
    error = DBAPIError.instance(INSERT, {"secret": "hidden"}, original, driver)
    assert isinstance(error, DBAPIError)
    return error


def sqlite_error(code: int, text: str, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> DBAPIError:
    original = kind(text)
    original.sqlite_errorcode = code
    return wrapped(original, sqlite3.Error)


def server_error(code: int, text: str, kind: type[pymysql.Error] = pymysql.OperationalError) -> DBAPIError:
    return wrapped(kind(code, text), pymysql.Error)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sqlite_error(sqlite3.SQLITE_FULL, "database or disk is full"), FaultKind.DISK_FULL),
        (sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT, "database is locked"), FaultKind.LOCKED),
        (sqlite_error(sqlite3.SQLITE_IOERR_FSYNC, "disk I/O error"), FaultKind.OTHER),
        (sqlite_error(sqlite3.SQLITE_NOTADB, "file is not a database", sqlite3.DatabaseError), FaultKind.OTHER),
        (sqlite_error(sqlite3.SQLITE_ERROR, "no such table: oma_jobs"), FaultKind.SCHEMA),
        (sqlite_error(sqlite3.SQLITE_ERROR, "table oma_jobs has no column named x"), FaultKind.SCHEMA),
        (sqlite_error(sqlite3.SQLITE_ERROR, 'near "x": syntax error'), FaultKind.STATEMENT),
        (
            sqlite_error(sqlite3.SQLITE_CONSTRAINT_UNIQUE, "UNIQUE constraint failed", sqlite3.IntegrityError),
            FaultKind.CONSTRAINT,
        ),
        (server_error(1213, "Deadlock found"), FaultKind.DEADLOCK),
        (server_error(1205, "Lock wait timeout exceeded"), FaultKind.LOCKED),
        (server_error(1114, "The table 'oma_jobs' is full"), FaultKind.DISK_FULL),
        (server_error(1021, "Disk full"), FaultKind.DISK_FULL),
        (server_error(3, "Error writing file 'x' (Errcode: 28 \"No space left on device\")"), FaultKind.DISK_FULL),
        (server_error(1062, "Duplicate entry", pymysql.IntegrityError), FaultKind.CONSTRAINT),
        (server_error(1146, "Table 'x' doesn't exist", pymysql.ProgrammingError), FaultKind.SCHEMA),
        (server_error(1064, "You have an error", pymysql.ProgrammingError), FaultKind.STATEMENT),
        (server_error(1406, "Data too long", pymysql.DataError), FaultKind.STATEMENT),
        (server_error(2013, "Lost connection"), FaultKind.LOST),
        (server_error(0, "", pymysql.InterfaceError), FaultKind.LOST),
        (server_error(1045, "Access denied for user"), FaultKind.OTHER),
    ],
)
def test_kinds(error: DBAPIError, kind: FaultKind) -> None:
    assert judge_fault(error).kind is kind


def test_only_errors_that_come_before_the_commit_are_definite() -> None:
    definite = {kind for kind in FaultKind if commit_is_definite(judge_fault_of(kind))}
    assert definite == {FaultKind.DEADLOCK, FaultKind.LOCKED, FaultKind.DISK_FULL, FaultKind.CONSTRAINT}


def judge_fault_of(kind: FaultKind):
    from database.faults import Fault  # noqa: PLC0415

    return Fault(kind, None, "words")


def test_a_reason_holds_neither_the_statement_nor_its_values() -> None:
    error = sqlite_error(sqlite3.SQLITE_FULL, "database or disk is full")
    told = to_error(judge_fault(error), error)
    assert isinstance(told, DatabaseUnavailable)
    assert told.disk_full
    assert "hidden" not in told.reason
    assert "INSERT" not in told.reason


def test_the_revision_that_the_program_knows_is_the_newest_script() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


@pytest.mark.parametrize(
    ("revision", "words"), [(None, "oma db upgrade"), ("0000", "oma db upgrade"), ("9999", "newer"), ("abc", "newer")]
)
def test_another_revision_is_said(revision: str | None, words: str) -> None:
    assert words in (describe_revision_fault(revision) or "")


def test_the_right_revision_is_no_fault() -> None:
    assert describe_revision_fault(HEAD) is None
