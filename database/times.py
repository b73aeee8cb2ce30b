"""Times in the database: aware and in UTC here, whatever the column holds there.

Own tables keep UTC with microseconds. In the tables of existing installations a `TIMESTAMP` column is read and
written with the session at `+00:00`, so that it is UTC; a `DATETIME` column holds the appliance's local time, because
the driver of those installations runs with `loc=Local`. Which of the two a column is, only the server knows:
`find_local_columns` asks it, and `set_legacy_times` tells the columns of that engine.

Tables that we create ourselves have `TIMESTAMP(6)` in those places, which both sides read alike, so a database of ours
needs no zone at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, DateTime, Dialect, text, type_coerce
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

MYSQL_DIALECTS = frozenset({"mysql", "mariadb"})


@dataclass(frozen=True, slots=True)
class LegacyTimes:
    """Which columns (`table.column`) hold local time, and of which zone."""

    zone: ZoneInfo
    local_columns: frozenset[str]


_LEGACY_TIMES: WeakKeyDictionary[Dialect, LegacyTimes] = WeakKeyDictionary()


def set_legacy_times(dialect: Dialect, times: LegacyTimes) -> None:
    """Every engine has a dialect of its own; from now on its columns follow `times`."""
    _LEGACY_TIMES[dialect] = times


def find_local_columns(connection: Connection) -> frozenset[str]:
    """`table.column` of every DATETIME column outside our own tables; only MariaDB has any."""
    if connection.dialect.name not in MYSQL_DIALECTS:
        return frozenset()
    rows = connection.execute(
        text(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND data_type = 'datetime'"
        )
    )
    return frozenset(f"{table}.{column}" for table, column in rows if not is_own_table(table))


def is_own_table(table: str) -> bool:
    return table.startswith(("oma_", "volume_daemon_"))


def find_system_zone(connection: Connection) -> str | None:
    """The server's `@@system_time_zone` where it names a zone that we know; it may be an abbreviation like `CEST`."""
    if connection.dialect.name not in MYSQL_DIALECTS:
        return None
    value = connection.execute(text("SELECT @@system_time_zone")).scalar()
    return None if value is None else str(value)


def read_clock(connection: Connection) -> datetime:
    """The database's own clock, by which leases are measured: microseconds on MariaDB, milliseconds on SQLite."""
    if connection.dialect.name in MYSQL_DIALECTS:
        return as_utc(connection.execute(_CLOCK_OF_MARIADB).scalar_one())
    return as_utc(datetime.fromisoformat(connection.execute(_CLOCK_OF_SQLITE).scalar_one()))


_CLOCK_OF_MARIADB: Final = text("SELECT UTC_TIMESTAMP(6)")
_CLOCK_OF_SQLITE: Final = text("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")


def as_utc(value: datetime) -> datetime:
    """A naive value is taken for UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def local_to_utc(value: datetime, zone: ZoneInfo) -> datetime:
    """The later meaning of a local time, where clocks repeat an hour or leave one out.

    Later is younger, and later than a snapshot: the more dangerous meaning of the two.
    """
    return max(_meanings(value, zone))


@dataclass(frozen=True, slots=True)
class Meanings:
    """What a local time without a zone may mean, where clocks repeat an hour (`repeated`) or leave one out."""

    written: datetime
    """Naive, as the column holds it."""
    earliest: datetime
    latest: datetime
    repeated: bool


def find_meanings(value: datetime, zone: ZoneInfo) -> Meanings | None:
    """Both meanings of a naive local time; None where it has only one."""
    first, second = _meanings(value, zone)
    if first == second:
        return None
    return Meanings(value, min(first, second), max(first, second), repeated=first < second)


def is_ambiguous(value: datetime, zone: ZoneInfo) -> bool:
    """Whether a naive local time has two meanings."""
    return find_meanings(value, zone) is not None


def _meanings(value: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """By the offset before the clocks change, and by the one after it."""
    before, after = (value.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return before, after


class UtcTime(TypeDecorator[datetime]):
    """A time of our own tables: UTC, microseconds, aware on the Python side."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in MYSQL_DIALECTS:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        return None if value is None else _naive_utc(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's
        return _read(value)


class LegacyTime(TypeDecorator[datetime]):
    """A time of a table that existing installations have. `place` is `table.column`; the table's builder sets it."""

    impl = DateTime
    cache_ok = True

    def __init__(self, place: str = "") -> None:
        super().__init__()
        self.place = place

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name in MYSQL_DIALECTS:
            return dialect.type_descriptor(mysql.TIMESTAMP(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        zone = self._zone(dialect)
        return _naive_utc(value) if zone is None else value.astimezone(zone).replace(tzinfo=None, fold=0)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        zone = self._zone(dialect)
        if zone is None or not isinstance(value, datetime):
            return _read(value)
        return local_to_utc(value, zone)

    def _zone(self, dialect: Dialect) -> ZoneInfo | None:
        return _zone_of(dialect, self.place)


class LegacyMeanings(TypeDecorator[Meanings]):
    """The same column read for its doubt: both meanings of a local time that has two, else None."""

    impl = DateTime
    cache_ok = True

    def __init__(self, place: str = "") -> None:
        super().__init__()
        self.place = place

    def process_result_value(self, value: Any, dialect: Dialect) -> Meanings | None:
        zone = _zone_of(dialect, self.place)
        return find_meanings(value, zone) if zone is not None and isinstance(value, datetime) else None


def find_local_places(dialect: Dialect) -> frozenset[str]:
    """The columns (`table.column`) that hold local time, by what `set_legacy_times` was told."""
    times = _LEGACY_TIMES.get(dialect)
    return times.local_columns if times is not None else frozenset()


def read_meanings(local: frozenset[str], column: ColumnElement[Any]) -> ColumnElement[Meanings] | None:
    """`column` once more, to be read as `Meanings`; None where it is not among the `local` ones, which may have two."""
    place = column.type.place if isinstance(column.type, LegacyTime) else ""
    if place not in local:
        return None
    return type_coerce(column, LegacyMeanings(place))


def _zone_of(dialect: Dialect, place: str) -> ZoneInfo | None:
    times = _LEGACY_TIMES.get(dialect)
    return times.zone if times is not None and place in times.local_columns else None


def _naive_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        message = f"a time without a zone cannot be stored: {value!r}"
        raise ValueError(message)
    return value.astimezone(UTC).replace(tzinfo=None)


def _read(value: Any) -> datetime | None:
    """Also what other programs left: PyMySQL hands out a zero date as text, and it means no time."""
    if isinstance(value, datetime):
        return as_utc(value)
    return None


class CurrentTime(FunctionElement[datetime]):
    """The server default of a time column, with the precision that the column has."""

    inherit_cache = True
    name = "current_time_with_precision"


@compiles(CurrentTime)
def _current_time(_element: CurrentTime, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(CurrentTime, "mysql", "mariadb")
def _current_time_of_mariadb(_element: CurrentTime, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CURRENT_TIMESTAMP(6)"
