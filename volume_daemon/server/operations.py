"""All operations: accepted once, run in order per volume, found and waited for, gone on with after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import TypeVar

from structlog import get_logger

from database.errors import DatabaseUnavailable
from volume_daemon.models import Operation, OperationStatus
from volume_daemon.server.carrying import Carrier
from volume_daemon.server.journal import JournalConflict
from volume_daemon.server.lanes import Lanes
from volume_daemon.server.live import Live
from volume_daemon.server.queue import Turns
from volume_daemon.server.records import Entry, Figures, Filter, Order, Stage
from volume_daemon.server.refusals import Problem, not_found
from volume_daemon.server.store import Store

log = get_logger(__name__)
Observer = Callable[[Entry], None]
T = TypeVar("T")


class Operations:
    """The registry of running operations over the journal; `observer` is told each one's end."""

    def __init__(
        self,
        *,
        store: Store,
        carrier: Carrier,
        turns: Turns,
        figures: Figures,
        now: Callable[[], datetime],
        observer: Observer | None = None,
    ) -> None:
        self._store = store
        self._carrier = carrier
        self._turns = turns
        self._figures = figures
        self._now = now
        self._observer = observer
        self._lanes = Lanes()
        self._orders = Lanes()
        """By operation: whether it is at work here is not asked while it is being accepted or taken back."""
        self._live: dict[str, Live] = {}
        self._in_doubt: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._recovered = False
        self._left: set[str] = set()
        """Ids that another daemon was seen to work on."""

    async def recover(self) -> int:
        """Goes on with what is open, in the order of acceptance; returns how many. What may have been sent counts
        in its VM's queue from the start, so that nothing new is sent past it. After a `stop` it begins anew.
        """
        if self._stopping:
            self._forget()
        entries = await self._store.list_open()
        for entry in entries:
            if entry.stage is Stage.SENT and entry.queue_vm_id is not None:
                self._turns.count(entry.queue_vm_id, entry.id)
        for entry in entries:
            self._launch(entry)
        # In the order of acceptance each takes its place in its volume's lane before anything else is let in.
        await asyncio.sleep(0)
        self._recovered = True
        return len(entries)

    async def stop(self) -> None:
        """Lets go of everything; the journal knows how far each came."""
        self._stopping = True
        tasks = [live.task for live in self._live.values() if live.task is not None] + list(self._in_doubt)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for live in list(self._live.values()):
            live.end()

    def _forget(self) -> None:
        """What was let go of stands in the journal, and may be another's work or at its end by now."""
        self._live.clear()
        self._left.clear()
        self._turns.forget()
        self._stopping = self._recovered = False

    async def accept(self, order: Order) -> Operation:
        """Raises `Problem`, `DatabaseUnavailable`."""
        if self._stopping:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "shutting_down", "The daemon is stopping; ask again soon.")
        async with self._orders.lane(order.id):
            try:
                entry, _ = await self._store.accept(order)
            except DatabaseUnavailable as error:
                if error.outcome_unknown:
                    self._settle(order.id)
                raise
            self._launch(entry)
            live = self._live.get(entry.id)
            if live is not None and entry.fence is not None:
                live.entry = replace(live.entry, fence=entry.fence)
            return self._present(entry, live)

    async def find(self, operation_id: str) -> Operation | None:
        live = self._live.get(operation_id)
        if live is not None:
            return self._present(live.entry, live)
        entry = await self._store.find_entry(operation_id)
        if entry is not None and entry.stage is not Stage.ENDED and self._recovered and operation_id not in self._left:
            entry = await self._go_on(operation_id)  # nobody works on it: its end could not be written
        return self._present(entry, self._live.get(operation_id)) if entry is not None else None

    async def _go_on(self, operation_id: str) -> Entry | None:
        async with self._orders.lane(operation_id):
            entry = await self._store.find_entry(operation_id)
            if entry is not None:
                self._launch(entry)
            return entry

    async def wait(self, operation_id: str, wait_s: float) -> Operation | None:
        """Answers when the operation has ended, turns overdue, or after `wait_s`."""
        live = self._live.get(operation_id)
        if live is None:
            await self.find(operation_id)
            live = self._live.get(operation_id)
        if live is not None:
            events = [live.ended] if live.overdue.is_set() else [live.ended, live.overdue]
            await _wait_for_any(events, wait_s)
        return await self.find(operation_id)

    async def list(self, where: Filter) -> list[Operation]:
        entries = await self._store.list_entries(where)
        return [self._present(entry, self._live.get(entry.id)) for entry in entries]

    async def cancel(self, operation_id: str) -> Operation:
        """Raises `Problem`: `operation_not_found`, or `operation_started` where CloudStack may have been asked."""
        async with self._orders.lane(operation_id):
            live = self._live.get(operation_id)
            if live is None:
                entry = await self._store.find_entry(operation_id)
                if entry is None:
                    raise not_found("operation_not_found", f"No operation {operation_id} ever arrived.")
                if entry.status is OperationStatus.CANCELLED:
                    return self._present(entry, None)
                raise _started(operation_id)
            async with live.turning_point:
                if live.is_decided:
                    raise _started(operation_id)
                cancelled = live.entry.ended(OperationStatus.CANCELLED, self._now())
                try:
                    await self._take_back(live, self._store.mark_cancelled(cancelled))
                except JournalConflict:
                    raise _started(operation_id) from None
                self._drop(live, cancelled)
            return self._present(cancelled, None)

    async def revoke(self, order: Order) -> Operation:
        """Takes an order back, also one that has not come in: see `revoking`. Raises `Problem`."""
        async with self._orders.lane(order.id):
            live = self._live.get(order.id)
            if live is None:
                return self._present(await self._store.revoke(order, is_decided=False), None)
            async with live.turning_point:
                entry = await self._take_back(live, self._store.revoke(order, is_decided=live.is_decided))
                if entry.status is OperationStatus.CANCELLED:
                    self._drop(live, entry)
                    return self._present(entry, None)
            return self._present(live.entry, live)

    async def _take_back(self, live: Live, write: Awaitable[T]) -> T:
        """Where the COMMIT is not answered, the operation must not be left at work if it is cancelled by it.

        Until that is known nobody passes its turning point. Raises what `write` raises.
        """
        try:
            return await write
        except DatabaseUnavailable as error:
            if error.outcome_unknown:
                entry = await self._store.find_entry_insisting(live.entry.id)
                if entry is not None and entry.status is OperationStatus.CANCELLED:
                    self._drop(live, entry)
            raise

    def _drop(self, live: Live, cancelled: Entry) -> None:
        live.entry = cancelled
        if live.task is not None:
            live.task.cancel()

    def count_live(self) -> int:
        return len(self._live)

    def _launch(self, entry: Entry) -> None:
        """Once, and only what has not ended."""
        if self._stopping or entry.stage is Stage.ENDED or entry.id in self._live:
            return
        live = Live(entry)
        self._live[entry.id] = live
        live.task = asyncio.create_task(self._run(live), name=f"operation {entry.id}")

    def _settle(self, operation_id: str) -> None:
        """Whether it was accepted is not known, and whoever asked may never ask again: nothing accepted lies idle."""
        task = asyncio.create_task(self._look_up(operation_id), name=f"in doubt {operation_id}")
        self._in_doubt.add(task)
        task.add_done_callback(self._in_doubt.discard)

    async def _look_up(self, operation_id: str) -> None:
        async with self._orders.lane(operation_id):
            entry = await self._store.find_entry_insisting(operation_id)
            if entry is not None:
                self._launch(entry)

    async def _run(self, live: Live) -> None:
        operation_id = live.entry.id
        try:
            async with self._lanes.lane(live.entry.volume_id or operation_id):
                await self._carrier.carry_out(live)
        except JournalConflict:
            async with live.turning_point:
                pass  # whoever takes it back has written so already, and says it before that is let go
            if live.entry.status is not OperationStatus.CANCELLED:
                log.exception("Another daemon works on this journal; the operation is left to it.", id=operation_id)
                self._left.add(operation_id)
        finally:
            if not self._stopping or live.entry.status.has_ended:
                self._live.pop(operation_id, None)
                live.end()
                self._tell(live.entry)

    def _tell(self, entry: Entry) -> None:
        log.info(
            "operation",
            id=entry.id,
            type=entry.type.value,
            status=entry.status.value,
            volume_id=entry.volume_id,
            vm_id=entry.vm_id,
            error=entry.error.text if entry.error else None,
            seconds=round((entry.updated_at - entry.created_at).total_seconds(), 3),
        )
        if self._observer is not None and entry.status.has_ended:
            self._observer(entry)

    def _present(self, entry: Entry, live: Live | None) -> Operation:
        if live is None:
            return entry.as_operation(self._now(), self._figures.operation_timeout_s)
        place = self._turns.queue.place(live.queue_vm_id, entry.id) if live.queue_vm_id else None
        waiting_for = live.waiting_for or ("its turn in the queue of the VM" if place else None)
        shown = live.entry.as_operation(self._now(), self._figures.operation_timeout_s, place, waiting_for)
        # By the clock that long polls wait for; the machine's own may have been set.
        return replace(shown, overdue=live.overdue.is_set() and not shown.has_ended)


def _started(operation_id: str) -> Problem:
    return Problem(
        HTTPStatus.CONFLICT,
        "operation_started",
        f"CloudStack may have been asked for operation {operation_id} already; it is followed to its end.",
        operation_id=operation_id,
    )


async def _wait_for_any(events: list[asyncio.Event], wait_s: float) -> None:
    if wait_s <= 0 or any(event.is_set() for event in events):
        return
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiters, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()
