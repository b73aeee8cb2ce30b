"""Whether a COMMIT that has returned survives a power cut: read back from the server, never assumed."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.engine import Connection

from database.engine import Engines

_SYNCHRONOUS_FULL = 2
INSIST = "or set database.accept_weak_durability to insist"


@dataclass(frozen=True, slots=True)
class Durability:
    """`sentence` tells how it is set up; `weakness` why a commit may be lost, None where it can't be."""

    sentence: str
    weakness: str | None


def read_durability(engines: Engines, connection: Connection) -> Durability:
    """`connection` is one of the writer's."""
    if engines.in_memory:
        return Durability("in memory", None)
    return _read_sqlite(connection) if engines.is_sqlite else _read_mariadb(connection)


def _read_sqlite(connection: Connection) -> Durability:
    mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    synchronous = connection.exec_driver_sql("PRAGMA synchronous").scalar_one()
    sentence = f"journal mode {mode}, synchronous {synchronous}"
    if mode != "wal":
        return Durability(sentence, f"SQLite keeps its journal mode at {mode!r} where WAL was asked for, {INSIST}")
    if synchronous != _SYNCHRONOUS_FULL:
        return Durability(sentence, f"SQLite's synchronous reads {synchronous}, 2 (FULL) is needed, {INSIST}")
    return Durability("WAL, synchronous FULL", None)


def _read_mariadb(connection: Connection) -> Durability:
    """`sync_binlog` counts too: with a binary log, recovery keeps what that log holds and rolls back the rest."""
    rows = connection.execute(
        text(
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN "
            "('innodb_flush_log_at_trx_commit', 'log_bin', 'sync_binlog', 'version')"
        )
    )
    variables = {name.lower(): value for name, value in rows}
    flush, sync_binlog = variables["innodb_flush_log_at_trx_commit"], variables["sync_binlog"]
    sentence = f"server {variables['version']}, innodb_flush_log_at_trx_commit {flush}"
    if flush != "1":
        return Durability(
            sentence,
            f"innodb_flush_log_at_trx_commit reads {flush}: the server answers before a commit is on disk; "
            f"set it to 1 in its configuration, {INSIST}",
        )
    if variables["log_bin"] == "ON" and sync_binlog != "1":
        return Durability(
            sentence,
            f"sync_binlog reads {sync_binlog} while the binary log is on: after a power cut the server forgets commits "
            f"that the log lacks; set it to 1 in its configuration, {INSIST}",
        )
    return Durability(sentence, None)
