"""The database as the daemon holds it: opened when it can be, with the reason as long as it can't."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy.exc import SQLAlchemyError

from appliance.logs import without_secrets
from appliance.settings import DatabaseSettings
from database import schema
from database.door import Door
from database.errors import DatabaseUnavailable, SchemaOutdated
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event
from oma.ports import Controls, Epochs, Inventory, JobReader, JournalStore, Peers, Watch
from oma.runtime.late import Late
from oma.store.epoch_store import SqlEpochs
from oma.store.inventory import SqlInventory
from oma.store.journal import SqlJournalStore
from oma.store.reader import SqlJobReader
from oma.store.supervision import SqlSupervision

LONGEST_CHECK_S = 10.0


@dataclass(frozen=True, slots=True)
class _Opened:
    door: Door
    inventory: SqlInventory
    journal: SqlJournalStore
    jobs: SqlJobReader
    supervision: SqlSupervision
    epochs: SqlEpochs


class Database:
    """The ports over the database. Until it is open their calls raise `database_unavailable` with the reason.

    A SQLite file that is missing or holds no table gets all its tables. Any other database is left as it is: upgrading
    it is a person's decision.
    """

    def __init__(self, settings: DatabaseSettings, announce: Callable[[Sequence[Event]], None]) -> None:
        self._settings = settings
        self._announce = announce
        self._opened: _Opened | None = None
        self.reason: str | None = "The database has not been opened yet."
        foreign: dict[type[Exception], Callable[[Exception], Exception]] = {SchemaOutdated: _as_unavailable}
        self.inventory = cast("Inventory", Late(lambda: self._get().inventory, foreign))
        self.journal = cast("JournalStore", Late(lambda: self._get().journal, foreign))
        self.jobs = cast("JobReader", Late(lambda: self._get().jobs, foreign))
        self.controls = cast("Controls", Late(lambda: self._get().supervision, foreign))
        self.epochs = cast("Epochs", Late(lambda: self._get().epochs, foreign))
        self.watch = cast("Watch", Late(lambda: self._get().supervision, foreign))
        self.peers = cast("Peers", Late(lambda: self._get().supervision, foreign))

    @property
    def is_open(self) -> bool:
        return self._opened is not None

    @property
    def door(self) -> Door:
        return self._get().door

    async def look_once(self) -> str | None:
        """Opens it, or sees whether it can still be used; a sentence where that has changed.

        `reason` follows. A database that was opened stays open: it may be back at the next call.
        """
        if self._opened is None:
            return await self.open_once()
        before = self.reason
        try:
            async with asyncio.timeout(LONGEST_CHECK_S):
                await self._opened.door.check()
            self.reason = None
        except SchemaOutdated as error:
            self.reason = str(error)
        except TimeoutError:
            self.reason = f"The database has not answered for {LONGEST_CHECK_S:g} s."
        except (DatabaseUnavailable, SQLAlchemyError, OSError) as error:
            self.reason = _as_reason(error)
        if self.reason == before:
            return None
        return self.reason or "The database can be used again."

    async def open_once(self) -> str | None:
        """Tries to open it, once; a sentence about how it went. Nothing is done where it is open already."""
        if self._opened is not None:
            return None
        try:
            door = await self._open()
        except SchemaOutdated as error:
            self.reason = str(error)
            return self.reason
        except (DatabaseUnavailable, SQLAlchemyError, OSError) as error:
            self.reason = _as_reason(error)
            return self.reason
        announce = self._announce
        self._opened = _Opened(
            door,
            SqlInventory(door),
            SqlJournalStore(door, announce),
            SqlJobReader(door),
            SqlSupervision(door, announce),
            SqlEpochs(door, announce),
        )
        self.reason = None
        return "The database is open."

    async def close(self) -> None:
        opened, self._opened = self._opened, None
        self.reason = "The database is closed: the daemon stops."
        if opened is not None:
            await opened.door.close()

    async def _open(self) -> Door:
        settings = self._settings
        await asyncio.to_thread(_prepare_schema, settings.url)
        return await Door.open(
            settings.url,
            legacy_time_zone=settings.legacy_time_zone,
            accept_weak_durability=settings.accept_weak_durability,
            readers=settings.readers,
        )

    def _get(self) -> _Opened:
        if self._opened is None:
            raise OmaError(Code.DATABASE_UNAVAILABLE, self.reason or "The database is not open.")
        return self._opened


def _prepare_schema(url: str) -> None:
    """Raises `SchemaOutdated` with all that keeps this version from working; such a database is left as it is."""
    if schema.is_fresh_sqlite(url):
        schema.upgrade(url)
    faults = schema.check(url, accept_weak_durability=True)
    if faults:
        raise SchemaOutdated(" ".join(faults))


def _as_unavailable(error: Exception) -> Exception:
    return OmaError(Code.DATABASE_UNAVAILABLE, str(error))


def _as_reason(error: Exception) -> str:
    return f"The database can't be used: {without_secrets(_first_line(error))}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
