"""`Controls`, `Watch` and `Peers` over the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy.engine import Connection

from oma.domain.controls import ControlChange, Pause
from oma.domain.events import Event
from oma.domain.issues import Issue
from oma.domain.watching import SlowJob
from oma.store import controls, peers, watching
from oma.store.events import stand
from oma.store.transactions import DatabaseDoor, Transactions

T = TypeVar("T")


class SqlSupervision:
    """Implements `Controls`, `Watch` and `Peers` of `oma.ports`. `announce` is given the committed events."""

    def __init__(self, door: DatabaseDoor, announce: Callable[[Sequence[Event]], None] | None = None) -> None:
        self._transactions = Transactions(door)
        self._announce = announce

    async def list_pauses(self) -> Sequence[Pause]:
        return await self._transactions.read(controls.list_pauses)

    async def pause(self, change: ControlChange) -> Pause:
        return await self._write(lambda connection: controls.pause(connection, change))

    async def lift(self, change: ControlChange) -> Pause | None:
        return await self._write(lambda connection: controls.lift(connection, change))

    async def list_slow_jobs(self, before: datetime) -> Sequence[SlowJob]:
        return await self._transactions.read(lambda connection: watching.list_slow_jobs(connection, before))

    async def settle_watched(
        self, kind: str, new: Sequence[Issue], kept: Sequence[str], sentence: str, at: datetime
    ) -> tuple[int, int]:
        return await self._write(
            lambda connection: watching.settle_watched(connection, kind, new, kept, sentence, at=at)
        )

    async def list_owners(self) -> Sequence[str]:
        return await self._transactions.read(peers.list_owners)

    async def end_leases(self, owner: str) -> int:
        return await self._transactions.write(
            lambda connection: peers.end_leases(connection, owner),
            # Ending them twice is as good as once: where the answer was lost it is simply done again.
            confirm=lambda _connection: False,
        )

    async def _write(self, fn: Callable[[Connection], tuple[T, list[Event]]]) -> T:
        """The events are written in the same transaction; where the COMMIT's answer was lost they are looked for."""
        last: list[Event] = []

        def write(connection: Connection) -> tuple[T, list[Event]]:
            result, events = fn(connection)
            last[:] = events
            return result, events

        result, events = await self._transactions.write(write, confirm=lambda connection: stand(connection, last))
        if self._announce is not None and events:
            self._announce(events)
        return result
