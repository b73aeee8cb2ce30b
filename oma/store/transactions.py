"""The store's way through the door to the database, and the one place where a closed door becomes our error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from sqlalchemy.engine import Connection

from database.errors import DatabaseUnavailable, SchemaOutdated
from oma.domain.errors import Code, OmaError

T = TypeVar("T")


class DatabaseDoor(Protocol):
    """What the store needs of `database.door.Door`; a function given to it may be run again."""

    async def read(self, fn: Callable[[Connection], T]) -> T: ...

    async def write(
        self, fn: Callable[[Connection], T], *, confirm: Callable[[Connection], bool] | None = None
    ) -> T: ...

    async def check(self) -> str: ...


class Transactions:
    """Reads and writes in one transaction each; raises `OmaError` with `database_unavailable`."""

    def __init__(self, door: DatabaseDoor) -> None:
        self._door = door

    async def read(self, fn: Callable[[Connection], T]) -> T:
        try:
            return await self._door.read(fn)
        except (DatabaseUnavailable, SchemaOutdated) as error:
            raise _unavailable(error) from error

    async def write(self, fn: Callable[[Connection], T], *, confirm: Callable[[Connection], bool] | None = None) -> T:
        """Returns after the commit; whatever `fn` raises has undone what `fn` wrote.

        `confirm` reads back what `fn` wrote where the answer to the COMMIT was lost; see `Door.write`.
        """
        try:
            return await self._door.write(fn, confirm=confirm)
        except (DatabaseUnavailable, SchemaOutdated) as error:
            raise _unavailable(error) from error

    async def check(self) -> str:
        try:
            return await self._door.check()
        except (DatabaseUnavailable, SchemaOutdated) as error:
            raise _unavailable(error) from error


def _unavailable(error: DatabaseUnavailable | SchemaOutdated) -> OmaError:
    """`outcome_unknown`: the write may or may not have happened; in every other case nothing was written."""
    if isinstance(error, SchemaOutdated):
        return _error(f"The database does not fit this program: {error.reason}", error.reason)
    if error.disk_full:
        sentence = "The database's disk is full, so nothing was written; make room on it, then ask again."
        return _error(sentence, error.reason, disk_full=True)
    sentence = f"The database is not available ({error.reason}); see `oma doctor`, then ask again."
    return _error(sentence, error.reason, outcome_unknown=error.outcome_unknown)


def _error(sentence: str, reason: str, *, disk_full: bool = False, outcome_unknown: bool = False) -> OmaError:
    return OmaError(
        Code.DATABASE_UNAVAILABLE, sentence, reason=reason, disk_full=disk_full, outcome_unknown=outcome_unknown
    )
