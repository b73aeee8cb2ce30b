"""Which columns the Volume Daemon's tables have in this database; generations of installations differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Integer, Numeric, String, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.schema import Column, Table

from database.errors import SchemaOutdated

MAY_BE_UNKNOWN = {
    "device_mappings": frozenset(
        {"vm_context_id", "cloudstack_device_id", "ossea_snapshot_id", "snapshot_created_at", "last_sync"}
    ),
    "nbd_exports": frozenset({"vm_context_id", "job_id", "vm_disk_id"}),
}
"""Columns for which there may be no value to write."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Column names as found; what is not there is neither read nor written.

    Fillers are what is written for "none" where this database insists on a value.
    """

    mapping_columns: frozenset[str]
    export_columns: frozenset[str]
    export_id_is_number: bool
    mapping_fillers: Mapping[str, Any] = field(default_factory=dict)
    export_fillers: Mapping[str, Any] = field(default_factory=dict)

    def mapping_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return _written(values, self.mapping_columns, self.mapping_fillers)

    def export_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return _written(values, self.export_columns, self.export_fillers)


def _written(values: Mapping[str, Any], columns: frozenset[str], fillers: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in values.items() if name in columns}
    return {name: fillers.get(name) if value is None else value for name, value in kept.items()}


def known_columns(table: Table, found: frozenset[str]) -> list[Column[Any]]:
    return [column for column in table.columns if column.name in found]


def read_shape(connection: Connection) -> Shape:
    """Asks the database's catalogue. Raises `SchemaOutdated` where an attachment could not be written into it."""
    inspector = inspect(connection)
    mappings = inspector.get_columns("device_mappings")
    exports = inspector.get_columns("nbd_exports")
    export_id = next((column["type"] for column in exports if column["name"] == "id"), None)
    return Shape(
        mapping_columns=frozenset(column["name"] for column in mappings),
        export_columns=frozenset(column["name"] for column in exports),
        export_id_is_number=isinstance(export_id, Integer),
        mapping_fillers=_read_fillers(connection, "device_mappings", mappings),
        export_fillers=_read_fillers(connection, "nbd_exports", exports),
    )


def _read_fillers(connection: Connection, table: str, columns: list[ReflectedColumn]) -> dict[str, Any]:
    insisting = [column for column in columns if not column["nullable"] and column["name"] in MAY_BE_UNKNOWN[table]]
    if not insisting:
        return {}
    keys = inspect(connection).get_foreign_keys(table)
    referring = {name for key in keys for name in key["constrained_columns"]}
    fillers: dict[str, Any] = {}
    for column in insisting:
        name, type_ = column["name"], column["type"]
        if name not in referring and isinstance(type_, String):
            fillers[name] = ""
        elif name not in referring and isinstance(type_, Integer | Numeric):
            fillers[name] = 0
        else:
            raise SchemaOutdated(
                f"{table}.{name} must have a value, and there may be none: an attachment could not be written. "
                "Allow NULL in this column."
            )
    return fillers
