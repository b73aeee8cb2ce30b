"""`Epochs` over the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy.engine import Connection

from oma.domain.epochs import EpochState, Older
from oma.domain.events import Event
from oma.domain.issues import Issue
from oma.domain.jobs import Job
from oma.store import epochs
from oma.store.transactions import DatabaseDoor, Transactions

T = TypeVar("T")


class SqlEpochs:
    """Implements `oma.ports.Epochs`. `announce` is given the committed events.

    Every write may be made twice where the answer to its COMMIT was lost: an epoch that is skipped is as good.
    """

    def __init__(self, door: DatabaseDoor, announce: Callable[[Sequence[Event]], None] | None = None) -> None:
        self._transactions = Transactions(door)
        self._announce = announce

    async def read(self) -> EpochState:
        return await self._transactions.read(epochs.read_state)

    async def raise_epoch(self, installation: str, owner: str, at: datetime) -> int:
        return await self._write(lambda connection: epochs.raise_epoch(connection, installation, owner, at))

    async def mark_older(self, older: Older, issue: Issue, at: datetime) -> str:
        issue_id, events = await self._write(lambda connection: epochs.mark_older(connection, older, issue, at))
        if self._announce is not None and events:
            self._announce(events)
        return issue_id

    async def accept(self, reason: str, actor: str, build: Callable[[Job], Issue], at: datetime) -> tuple[int, int]:
        return await self._write(lambda connection: epochs.accept_restore(connection, reason, actor, build, at))

    async def _write(self, fn: Callable[[Connection], T]) -> T:
        return await self._transactions.write(fn, confirm=lambda _connection: False)
