"""Times of existing rows that have two meanings, or lie in the future: collected while the rows are read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement
from sqlalchemy.engine import Connection, RowMapping

from database.times import Meanings, find_local_places, read_clock, read_meanings
from oma.domain.records import NEVER, DoubtfulTime

FUTURE: Final = timedelta(seconds=5)
"""How far ahead of the database's clock a time may lie: the clocks of other writers are not exactly its own."""
SUFFIX: Final = "_meanings"


def also(local: frozenset[str], *columns: ColumnElement[Any]) -> Iterator[ColumnElement[Meanings]]:
    """What has to be selected beside these columns; nothing where they hold UTC. `local`: see `Doubts`."""
    for column in columns:
        meanings = read_meanings(local, column)
        if meanings is not None:
            yield meanings.label(f"{_name(column)}{SUFFIX}")


class Doubts:
    """One reading's doubtful times, by their owner: whatever the caller groups its rows by.

    A query selects `also(...)` of its time columns beside them, and every row is given to `note`.
    """

    def __init__(self, connection: Connection) -> None:
        self._found: dict[str, list[DoubtfulTime]] = {}
        self.local = find_local_places(connection.dialect)
        """Which columns (`table.column`) of this database hold local time: they decide what a query looks like."""
        self.now = read_clock(connection)
        """The database's own clock."""

    def note(self, owner: str | None, table: str, row: RowMapping, row_id: object, *names: str) -> None:
        """Looks at the row's times of these names."""
        for name in names:
            meanings = row[f"{name}{SUFFIX}"] if f"{table}.{name}" in self.local else None
            found = self._judge(table, str(row_id), name, row[name], meanings)
            if found is not None:
                self._found.setdefault(owner or "", []).append(found)

    def of(self, owner: str) -> tuple[DoubtfulTime, ...]:
        return tuple(self._found.get(owner, ()))

    def _judge(
        self, table: str, row_id: str, name: str, at: datetime | None, meanings: Meanings | None
    ) -> DoubtfulTime | None:
        if at is None:
            return None
        place = f"{table}.{name} of {row_id}"
        if at > self.now + FUTURE:
            ahead_s = (at - self.now).total_seconds()
            why = (
                f"{place} is {_utc(at)}, {ahead_s:.0f} s ahead of the database's clock; it is taken for younger than "
                "anything, and settles nothing."
            )
            return DoubtfulTime(table, row_id, name, NEVER, at, why)
        if meanings is None:
            return None
        hour = "repeat" if meanings.repeated else "leave out"
        why = (
            f"{place} is {meanings.written:%Y-%m-%d %H:%M:%S} local time, in an hour that clocks {hour}: it may mean "
            f"{_utc(meanings.earliest)} or {_utc(meanings.latest)}; the more dangerous meaning counts."
        )
        return DoubtfulTime(table, row_id, name, meanings.earliest, at, why)


def _name(column: ColumnElement[Any]) -> str:
    """The key under which the row has it: a label's own name, else the column's."""
    return str(getattr(column, "name", "") or getattr(column, "key", ""))


def _utc(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
