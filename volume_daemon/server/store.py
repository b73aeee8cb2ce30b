"""The daemon's way to the database: the functions of `journal` and `mappings` through the one door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import NoSuchTableError
from structlog import get_logger

from database.door import Door
from database.errors import DatabaseUnavailable, SchemaOutdated
from volume_daemon.holders.ended import EndedTree
from volume_daemon.server import endings, journal, mappings
from volume_daemon.server.endings import EndOrder
from volume_daemon.server.pauses import Pauses
from volume_daemon.server.records import Entry, Figures, Filter, MappingRow, Order, RecordedExport, VolumeRecords
from volume_daemon.server.shape import Shape, read_shape

log = get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Placed:
    """A mapping with its exports, to be written with an operation's end."""

    mapping: MappingRow
    exports: tuple[RecordedExport, ...] = ()


@dataclass(frozen=True, slots=True)
class Removed:
    """The mapping and its exports go."""


@dataclass(frozen=True, slots=True)
class Doubtful:
    """The mapping stays, with what is known."""

    cloudstack_state: str
    linux_state: str


MappingChange = Placed | Removed | Doubtful | None


class Store:
    """Each method is one transaction. `DatabaseUnavailable` reaches the caller, except where "insists" is said.

    Until `open`, every method finds the database unavailable, for the `reason`.
    """

    def __init__(self, figures: Figures, now: Callable[[], datetime]) -> None:
        self._figures = figures
        self._now = now
        self._opened: tuple[Door, Shape] | None = None
        self.reason = "The database has not been opened yet."

    async def open(self, door: Door) -> None:
        """Raises `SchemaOutdated` where the tables are not there, or could not hold what is to be written."""
        try:
            self._opened = door, await door.read(read_shape)
        except NoSuchTableError as error:
            raise SchemaOutdated(f"the database has no table {error}; run `oma db upgrade`") from None

    @property
    def _door(self) -> Door:
        return self._get()[0]

    @property
    def _shape(self) -> Shape:
        return self._get()[1]

    def _get(self) -> tuple[Door, Shape]:
        if self._opened is None:
            raise DatabaseUnavailable(self.reason)
        return self._opened

    async def accept(self, order: Order) -> tuple[Entry, bool]:
        """Raises `Problem`."""
        now = self._now()
        return await self._door.write(
            lambda connection: journal.accept(connection, order, now),
            confirm=lambda connection: journal.is_accepted(connection, order),
        )

    async def mark_sent(self, entry: Entry) -> None:
        """Insists. Raises `Problem` `fenced`."""
        await self._insist(entry, lambda connection: journal.mark_sent(connection, entry))

    async def mark(self, entry: Entry) -> None:
        """Insists."""
        await self._insist(entry, lambda connection: journal.mark(connection, entry))

    async def mark_cancelled(self, entry: Entry) -> None:
        await self._door.write(
            lambda connection: journal.mark_cancelled(connection, entry),
            confirm=lambda connection: journal.is_written(connection, entry),
        )

    async def finish(self, entry: Entry, change: MappingChange) -> None:
        """The operation's end, mapping and exports, together. Insists. Raises `PathTaken`, `ExportNameTaken`."""
        now = self._now()

        def commit(connection: Connection) -> None:
            volume_id = entry.volume_id or ""
            match change:
                case Placed(mapping, exports):
                    mappings.save_mapping(connection, self._shape, mapping, exports, now)
                case Removed():
                    mappings.remove_mapping(connection, volume_id)
                case Doubtful(cloudstack_state, linux_state):
                    mappings.set_mapping_states(connection, volume_id, cloudstack_state, linux_state, now)
                case None:
                    pass
            journal.mark_ended(connection, entry)

        await self._insist(entry, commit)

    async def read_volume(self, volume_id: str) -> VolumeRecords:
        return await self._door.read(lambda connection: mappings.read_volume(connection, self._shape, volume_id))

    async def read_volume_insisting(self, volume_id: str) -> VolumeRecords:
        return await self._repeat(lambda: self.read_volume(volume_id))

    async def find_entry(self, operation_id: str) -> Entry | None:
        return await self._door.read(lambda connection: journal.find_entry(connection, operation_id))

    async def list_entries(self, where: Filter) -> list[Entry]:
        return await self._door.read(lambda connection: journal.list_entries(connection, where))

    async def list_open(self) -> list[Entry]:
        return await self._door.read(journal.list_open)

    async def read_oma_vm_ids_of(self, volume_ids: Sequence[str]) -> dict[str, frozenset[str]]:
        return await self._door.read(lambda connection: mappings.read_oma_vm_ids_of(connection, volume_ids))

    async def read_all_oma_vm_ids(self) -> frozenset[str]:
        return await self._door.read(mappings.read_all_oma_vm_ids)

    async def list_mappings_of(self, volume_ids: Sequence[str]) -> dict[str, MappingRow]:
        return await self._door.read(lambda connection: mappings.list_mappings_of(connection, self._shape, volume_ids))

    async def list_mappings_at(self, paths: Sequence[str]) -> list[MappingRow]:
        return await self._door.read(lambda connection: mappings.list_mappings_at(connection, self._shape, paths))

    async def find_end_outcome(self, order: EndOrder) -> tuple[EndedTree, ...] | None:
        """Raises `Problem`."""
        return await self._door.read(lambda connection: endings.find_outcome(connection, order))

    async def save_end_intent(self, order: EndOrder, trees: list[dict[str, Any]]) -> None:
        """Raises `Problem` `fenced`."""
        now = self._now()
        await self._door.write(
            lambda connection: endings.save_intent(connection, order, trees, now),
            confirm=lambda connection: endings.is_intended(connection, order),
        )

    async def save_end_outcome(self, order: EndOrder, ended: tuple[EndedTree, ...]) -> None:
        """Insists."""
        now = self._now()
        await self._repeat(
            lambda: self._door.write(lambda connection: endings.save_outcome(connection, order, ended, now))
        )

    async def check(self) -> str:
        return await self._door.check()

    async def _insist(self, entry: Entry, change: Callable[[Connection], T]) -> T:
        """A COMMIT whose answer was lost is looked up by the operation's id before it is repeated."""
        return await self._repeat(
            lambda: self._door.write(change, confirm=lambda connection: journal.is_written(connection, entry))
        )

    async def _repeat(self, call: Callable[[], Awaitable[T]]) -> T:
        """An outcome is never lost because the database was away: it is written when it is back."""
        pauses = Pauses(self._figures.pause_min_s, self._figures.pause_max_s)
        while True:
            try:
                return await call()
            except DatabaseUnavailable as error:
                log.warning("The database is not available; what is to be written waits.", reason=error.reason)
            await pauses.pause()
