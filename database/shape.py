"""Compares the tables that a database has with those that this program needs; looks only, changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, inspect, text
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import ReflectedColumn

from database.revision import VERSION_TABLE
from database.tables import metadata
from database.tables.columns import Choice
from database.times import MYSQL_DIALECTS, is_own_table

_NEEDED_OF_VARYING: dict[str, frozenset[str]] = {
    "device_mappings": frozenset({"volume_uuid", "vm_id", "device_path", "operation_mode", "ossea_snapshot_id"}),
    "nbd_exports": frozenset({"export_name", "port"}),
}
"""Tables of which generations of installations have different columns; whoever writes them looks which there are."""

_FILLED_BY_US = frozenset(
    {"job_tracking", "job_steps", "log_events", "cbt_history"}
    | {"volume_operations", "volume_operation_history", "device_mappings", "nbd_exports"}
)
"""Existing tables into which rows of ours go, so that a column that we don't know must not insist on a value."""


@dataclass(frozen=True, slots=True)
class Shape:
    """`faults` keep the program from working; `notes` are differences that it lives with."""

    faults: tuple[str, ...]
    notes: tuple[str, ...]


def find_stranger(connection: Connection) -> str | None:
    """A sentence where the database is in use, but not by anything that we know."""
    tables = set(inspect(connection).get_table_names())
    if not tables or tables & (set(metadata.tables) | {VERSION_TABLE}):
        return None
    some = ", ".join(sorted(tables)[:3])
    return (
        f"The database belongs to another program: it has {len(tables)} table(s) ({some}, …), none of them "
        "MigrateKit's or ours. Point database.url at the right database, or at an empty one."
    )


def find_wrong_own_tables(connection: Connection) -> Sequence[str]:
    """Faults of tables that carry our names and were not made by us, so that creating the others would not help."""
    return [
        fault
        for table, columns in _present(connection)
        if is_own_table(table.name)
        for fault in _missing_columns(table, columns, set(table.columns.keys()))
    ] + list(_views(connection))


def compare_tables(connection: Connection) -> Shape:
    faults: list[str] = list(_views(connection))
    notes: list[str] = []
    present = list(_present(connection))
    missing = sorted(set(metadata.tables) - {table.name for table, _ in present})
    faults += [f"The table {name} is missing; run `oma db upgrade`." for name in missing]
    for table, columns in present:
        needed = _NEEDED_OF_VARYING.get(table.name, frozenset(table.columns.keys()))
        faults += _missing_columns(table, columns, needed)
        absent = set(table.columns.keys()) - needed - {column["name"] for column in columns}
        notes += [f"{table.name} has no column {name}; it is done without." for name in sorted(absent)]
        for column in columns:
            if column["name"] in table.columns:
                notes += _missing_values(table, column)
            elif table.name in _FILLED_BY_US and _insists(column):
                faults.append(
                    f"{table.name}.{column['name']} must have a value and has no default, and this program does not "
                    "know it: its rows would be refused. Give the column a default."
                )
            else:
                notes.append(f"{table.name} has a column {column['name']} that this program does not use.")
    faults += _not_transactional(connection, {table.name for table, _ in present})
    return Shape(tuple(faults), tuple(notes))


def _present(connection: Connection) -> Iterator[tuple[Table, list[ReflectedColumn]]]:
    inspector = inspect(connection)
    tables = set(inspector.get_table_names())
    for table in metadata.sorted_tables:
        if table.name in tables:
            yield table, inspector.get_columns(table.name)


def _views(connection: Connection) -> Iterator[str]:
    for name in sorted(set(inspect(connection).get_view_names()) & set(metadata.tables)):
        yield f"{name} is a view where a table is needed."


def _missing_columns(
    table: Table, columns: Sequence[ReflectedColumn], needed: frozenset[str] | set[str]
) -> Sequence[str]:
    absent = sorted(needed - {column["name"] for column in columns})
    if not absent:
        return []
    whose = (
        "is not ours or is broken" if is_own_table(table.name) else "is of a version that this program does not know"
    )
    return [f"The table {table.name} lacks {', '.join(absent)}: it {whose}."]


def _insists(column: ReflectedColumn) -> bool:
    has_value = column.get("default") is not None or column.get("autoincrement") is True or column.get("computed")
    return not column["nullable"] and not has_value


def _missing_values(table: Table, column: ReflectedColumn) -> Iterator[str]:
    known: Any = table.columns[column["name"]].type
    found: Any = column["type"]
    if isinstance(known, Choice) and isinstance(found, mysql.ENUM):
        absent = sorted(set(known.values) - set(found.enums))
        if absent:
            yield f"{table.name}.{column['name']} can't hold {', '.join(absent)}."


def _not_transactional(connection: Connection, tables: set[str]) -> Iterator[str]:
    if connection.dialect.name not in MYSQL_DIALECTS:
        return
    rows = connection.execute(
        text("SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE()")
    )
    for name, engine in sorted((name, engine) for name, engine in rows if name in tables):
        if str(engine).lower() != "innodb":
            yield f"The table {name} is kept by {engine}, which can't roll back; convert it to InnoDB."
