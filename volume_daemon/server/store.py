"""The daemon's way to the database: the functions of `journal` and `mappings` through the one door."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import NoSuchTableError
from structlog import get_logger

from appliance.crashpoints import Change, CrashPoint
from database.door import Door
from database.errors import DatabaseUnavailable, SchemaOutdated
from volume_daemon.holders.ended import EndedTree
from volume_daemon.server import endings, journal, mappings, revoking, unfinished
from volume_daemon.server.endings import EndOrder
from volume_daemon.server.holding import Holding
from volume_daemon.server.mappings import Doubtful, MappingChange, Placed, Removed
from volume_daemon.server.records import Entry, Figures, Filter, MappingRow, Order, Stage, VolumeRecords
from volume_daemon.server.refusals import fenced
from volume_daemon.server.shape import Shape, read_shape

log = get_logger(__name__)
T = TypeVar("T")

ACCEPT = Change("volume_daemon.journal.accept")
REVOKE = Change("volume_daemon.journal.revoke")
MARK_SENT = Change("volume_daemon.journal.sent")
MARK = Change("volume_daemon.journal.note")
MARK_CANCELLED = Change("volume_daemon.journal.cancelled")
MARK_UNREADABLE = Change("volume_daemon.journal.unreadable")
END_CONDEMNED = Change("volume_daemon.journal.condemned")
FINISH = Change("volume_daemon.journal.finish")
END_INTENT = Change("volume_daemon.holders.intent")
END_OUTCOME = Change("volume_daemon.holders.outcome")
MAPPED = CrashPoint("volume_daemon.journal.finish.within")
"""Mapping and exports are written, the operation's end is not, and nothing is committed."""


class Store:
    """Each method is one transaction. `DatabaseUnavailable` reaches the caller, except where "insists" is said.

    Until `open`, every method finds the database unavailable, for the `reason`.
    """

    def __init__(self, figures: Figures, now: Callable[[], datetime]) -> None:
        self._figures = figures
        self._now = now
        self._opened: tuple[Door, Shape] | None = None
        self._holding: Holding | None = None
        self._fences: dict[str, int] = {}
        self.reason = "The database has not been opened yet."

    async def open(self, door: Door, holding: Holding | None = None) -> None:
        """Raises `SchemaOutdated` where the tables are not there, or could not hold what is to be written.

        `holding`: what every write asks first; None where no other daemon can be.
        """
        self._holding = holding
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
        accepted = await self._write(
            ACCEPT,
            lambda connection: journal.accept(connection, order, now),
            lambda connection: journal.is_accepted(connection, order),
        )
        self._note_fence(order.volume_id, order.fence)
        return accepted

    async def revoke(self, order: Order, *, is_decided: bool) -> Entry:
        """Raises `Problem`."""
        now = self._now()
        entry = await self._write(
            REVOKE,
            lambda connection: revoking.revoke(connection, order, now, is_decided=is_decided),
            lambda connection: revoking.is_revoked(connection, order),
        )
        self._note_fence(order.volume_id, order.fence)
        return entry

    async def require_hold(self) -> None:
        """Right before anything is changed elsewhere; waits to be let go of where the journal is not ours any more."""
        if self._holding is not None:
            await self._holding.require()

    def check_fence(self, entry: Entry) -> None:
        """Without a wait, right before CloudStack is asked: whether a newer holder has spoken since the start.

        `mark_sent` looks into the database for the time before. Raises `Problem` `fenced`.
        """
        seen = self._fences.get(entry.volume_id or "", 0)
        if entry.fence is not None and entry.fence < seen:
            raise fenced(entry.volume_id or "", entry.fence, seen)

    def _note_fence(self, volume_id: str | None, fence: int | None) -> None:
        if volume_id is not None and fence is not None:
            self._fences[volume_id] = max(fence, self._fences.get(volume_id, 0))

    async def mark_sent(self, entry: Entry) -> None:
        """Insists. Raises `Problem` `fenced`."""
        await self._insist(MARK_SENT, entry, lambda connection: journal.mark_sent(connection, entry))

    async def mark(self, entry: Entry) -> None:
        """Insists."""
        await self._insist(MARK, entry, lambda connection: journal.mark(connection, entry))

    async def mark_cancelled(self, entry: Entry) -> None:
        await self._write(
            MARK_CANCELLED,
            lambda connection: journal.mark_cancelled(connection, entry),
            lambda connection: journal.is_written(connection, entry),
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
            MAPPED.reach()
            journal.mark_ended(connection, entry)

        await self._insist(FINISH, entry, commit)

    async def read_volume(self, volume_id: str) -> VolumeRecords:
        return await self._door.read(lambda connection: mappings.read_volume(connection, self._shape, volume_id))

    async def read_volume_insisting(self, volume_id: str) -> VolumeRecords:
        return await self._repeat(lambda: self.read_volume(volume_id))

    async def check_export_names(self, volume_id: str, names: Sequence[str]) -> None:
        """Insists. Raises `ExportNameTaken`."""

        def check(connection: Connection) -> None:
            mappings.check_export_names(connection, volume_id, names)

        await self._repeat(lambda: self._door.read(check))

    async def find_entry_insisting(self, operation_id: str) -> Entry | None:
        return await self._repeat(lambda: self.find_entry(operation_id))

    async def find_entry(self, operation_id: str) -> Entry | None:
        return await self._door.read(lambda connection: journal.find_entry(connection, operation_id))

    async def list_entries(self, where: Filter) -> list[Entry]:
        return await self._door.read(lambda connection: journal.list_entries(connection, where))

    async def list_open(self) -> list[Entry]:
        """What a restart goes on with. A row that makes no sense keeps nothing else back: it ends here as failed, or
        comes first, condemned, where CloudStack may have been asked.
        """
        readable, senseless = await self._door.read(unfinished.list_open)
        now = self._now()
        condemned: list[Entry] = []
        for operation_id, why in senseless.items():
            log.error("A row of the journal makes no sense; its operation ends.", id=operation_id, reason=why)
            entry = await self._write(
                MARK_UNREADABLE,
                partial(unfinished.condemn, operation_id=operation_id, why=why, now=now),
                partial(unfinished.is_condemned, operation_id=operation_id),
            )
            if entry.stage is not Stage.ENDED:
                condemned.append(entry)
        return condemned + readable

    async def end_condemned(self, entry: Entry) -> None:
        """Insists; the same may be written twice."""
        await self._repeat(
            lambda: self._write(
                END_CONDEMNED,
                partial(unfinished.end, entry=entry),
                partial(unfinished.has_ended, operation_id=entry.id),
            )
        )

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
        await self._write(
            END_INTENT,
            lambda connection: endings.save_intent(connection, order, trees, now),
            lambda connection: endings.is_intended(connection, order, trees),
        )
        self._note_fence(order.volume_id, order.fence)

    async def save_end_outcome(self, order: EndOrder, ended: tuple[EndedTree, ...]) -> None:
        """Insists; the same may be written twice."""
        now = self._now()
        await self._repeat(
            lambda: self._write(
                END_OUTCOME,
                lambda connection: endings.save_outcome(connection, order, ended, now),
                lambda connection: endings.has_outcome(connection, order, ended),
            )
        )

    async def check(self) -> str:
        return await self._door.check()

    async def _write(self, change: Change, fn: Callable[[Connection], T], confirm: Callable[[Connection], bool]) -> T:
        """`confirm` looks for what was written, where the answer to the COMMIT was lost.

        That the journal is ours is asked in the transaction, again wherever the door begins it anew.
        """
        check = self._holding.build_check() if self._holding else None

        def held(connection: Connection) -> T:
            if check is not None:
                check()
            return fn(connection)

        with change:
            return await self._door.write(held, confirm=confirm)

    async def _insist(self, change: Change, entry: Entry, fn: Callable[[Connection], None]) -> None:
        """A COMMIT whose answer was lost is looked up by the operation's id before it is repeated, however late.

        Done twice it would be a conflict: an operation that has ended does not end again.
        """
        in_doubt = False

        def is_written(connection: Connection) -> bool:
            return journal.is_written(connection, entry)

        async def attempt() -> None:
            nonlocal in_doubt
            if in_doubt and await self._door.read(is_written):
                return
            try:
                await self._write(change, fn, is_written)
            except DatabaseUnavailable as error:
                in_doubt = error.outcome_unknown
                raise

        await self._repeat(attempt)

    async def _repeat(self, call: Callable[[], Awaitable[T]]) -> T:
        """An outcome is never lost because the database was away: it is written when it is back."""
        pauses = self._figures.pauses()
        while True:
            try:
                return await call()
            except DatabaseUnavailable as error:
                log.warning("The database is not available; what is to be written waits.", reason=error.reason)
            await pauses.pause()
