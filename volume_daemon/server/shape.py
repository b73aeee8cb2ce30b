"""Which columns the Volume Daemon's tables have in this database; generations of installations differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Integer, inspect
from sqlalchemy.engine import Connection
from sqlalchemy.schema import Column, Table

from database.tables import device_mappings, nbd_exports


@dataclass(frozen=True, slots=True)
class Shape:
    """Column names as found; what is not there is neither read nor written."""

    mapping_columns: frozenset[str]
    export_columns: frozenset[str]
    export_id_is_number: bool

    def mapping_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in self.mapping_columns}

    def export_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name in self.export_columns}

    def mapping_select(self) -> list[Column[Any]]:
        return known_columns(device_mappings, self.mapping_columns)

    def export_select(self) -> list[Column[Any]]:
        return known_columns(nbd_exports, self.export_columns)


def known_columns(table: Table, found: frozenset[str]) -> list[Column[Any]]:
    return [column for column in table.columns if column.name in found]


def read_shape(connection: Connection) -> Shape:
    """Asks the database's catalogue."""
    inspector = inspect(connection)
    mappings = inspector.get_columns("device_mappings")
    exports = inspector.get_columns("nbd_exports")
    export_id = next((column["type"] for column in exports if column["name"] == "id"), None)
    return Shape(
        mapping_columns=frozenset(column["name"] for column in mappings),
        export_columns=frozenset(column["name"] for column in exports),
        export_id_is_number=isinstance(export_id, Integer),
    )
