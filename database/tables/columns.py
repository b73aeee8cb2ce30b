"""The metadata, and the kinds of column that all tables are made of.

Enumerations are VARCHAR columns in every database that we create, and real ENUM columns where an existing installation
has them: both are read and written as plain strings. We don't create ENUMs because adding a value would then alter a
column, because MariaDB sorts and compares them by position, and because SQLite has none. CHECK constraints are left out
for the same reason: existing installations write values of their own (`failover_jobs.status` has been seen empty and at
`executing`). What *we* write is checked by `Choice` before it is sent, since a lenient server stores a value that its
ENUM lacks as the empty string.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Dialect, Integer, MetaData, String, Table, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql.operators import OperatorType
from sqlalchemy.types import TypeDecorator, TypeEngine

from database.times import MYSQL_DIALECTS, LegacyTime

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

LEGACY_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_unicode_ci",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_unicode_ci",
}
"""As existing installations have them: case and trailing blanks are ignored, so names are compared again in Python."""

OWN_OPTIONS: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_nopad_bin",
    "mariadb_engine": "InnoDB",
    "mariadb_charset": "utf8mb4",
    "mariadb_collate": "utf8mb4_nopad_bin",
}
"""Code point by code point, trailing blanks included: two idempotency keys that differ anywhere are two keys."""

RowId = BigInteger().with_variant(Integer(), "sqlite")
"""A number that the database gives; SQLite counts up only in a column declared INTEGER."""


class Choice(TypeDecorator[str]):
    """One of some values on the way in; on the way out, whatever stands there.

    Comparing with a value that is not among them is allowed and finds nothing.
    """

    impl = String
    cache_ok = True

    def __init__(self, *values: str, length: int = 32) -> None:
        super().__init__(length)
        self.values = values
        self.length = length

    def coerce_compared_value(self, op: OperatorType | None, value: Any) -> TypeEngine[Any]:  # noqa: ARG002 - SQLAlchemy's
        return String()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        if value is None or value in self.values:
            return value
        message = f"{value!r} is not one of {', '.join(self.values)}"
        raise ValueError(message)


class Json(TypeDecorator[Any]):
    """A JSON value in a text column, which is what MariaDB's own JSON type is too; None is NULL.

    Reading text that is not JSON gives None: other programs write these columns too.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(_text_for(dialect))

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's
        return None if value is None else json.dumps(value, ensure_ascii=False, default=_as_json)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002 - SQLAlchemy's
        if value is None:
            return None
        try:
            return json.loads(value)
        except ValueError:
            return None


class LongText(TypeDecorator[str]):
    """Text without a practical limit; MariaDB's TEXT ends at 64 KiB."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(_text_for(dialect))


def _text_for(dialect: Dialect) -> TypeEngine[Any]:
    return mysql.LONGTEXT() if dialect.name in MYSQL_DIALECTS else Text()


def _as_json(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    message = f"{type(value).__name__} is not a JSON value"
    raise TypeError(message)


def legacy_table(name: str, *items: SchemaItem) -> Table:
    """A table that existing installations have, or would have: its times know their place."""
    for item in items:
        if isinstance(item, Column) and isinstance(item.type, LegacyTime):
            item.type.place = f"{name}.{item.name}"
    return Table(name, metadata, *items, **LEGACY_OPTIONS)


def own_table(name: str, *items: SchemaItem) -> Table:
    """A table of ours, with a name of its own (`oma_*`, `volume_daemon_*`)."""
    return Table(name, metadata, *items, **OWN_OPTIONS)
