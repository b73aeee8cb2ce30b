"""All operations: accepted once, run in order per volume, found and waited for, gone on with after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus

from structlog import get_logger

from volume_daemon.models import FaultKind, Operation, OperationError, OperationStatus
from volume_daemon.server.finish import Finisher
from volume_daemon.server.journal import JournalConflict
from volume_daemon.server.live import Live
from volume_daemon.server.pursuit import Outcome, Pursuit
from volume_daemon.server.queue import Turns
from volume_daemon.server.records import Entry, Figures, Filter, Order, Stage
from volume_daemon.server.refusals import Problem, not_found
from volume_daemon.server.store import Store

log = get_logger(__name__)
Observer = Callable[[Entry], None]


class Lanes:
    """One operation at a time per volume, in the order of acceptance."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def lane(self, key: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[key]
            if users == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, users - 1)


class Operations:
    """The registry of running operations over the journal; `observer` is told each one's end."""

    def __init__(
        self,
        *,
        store: Store,
        pursuit: Pursuit,
        finisher: Finisher,
        turns: Turns,
        figures: Figures,
        now: Callable[[], datetime],
        observer: Observer | None = None,
    ) -> None:
        self._store = store
        self._pursuit = pursuit
        self._finisher = finisher
        self._turns = turns
        self._figures = figures
        self._now = now
        self._observer = observer
        self._lanes = Lanes()
        self._live: dict[str, Live] = {}
        self._stopping = False

    async def recover(self) -> int:
        """Goes on with what is open, in the order of acceptance; returns how many. What may have been sent counts
        in its VM's queue from the start, so that nothing new is sent past it.
        """
        entries = await self._store.list_open()
        for entry in entries:
            if entry.stage is Stage.SENT and entry.queue_vm_id is not None:
                self._turns.count(entry.queue_vm_id, entry.id)
        for entry in entries:
            self._launch(entry)
        return len(entries)

    async def stop(self) -> None:
        """Lets go of everything; the journal knows how far each came."""
        self._stopping = True
        tasks = [live.task for live in self._live.values() if live.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for live in list(self._live.values()):
            live.end()

    async def accept(self, order: Order) -> Operation:
        """Raises `Problem`, `DatabaseUnavailable`."""
        if self._stopping:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, "shutting_down", "The daemon is stopping; ask again soon.")
        entry, is_new = await self._store.accept(order)
        if is_new and not self._stopping:
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
        return self._present(entry, None) if entry is not None else None

    async def wait(self, operation_id: str, wait_s: float) -> Operation | None:
        """Answers when the operation has ended, turns overdue, or after `wait_s`."""
        live = self._live.get(operation_id)
        if live is not None:
            overdue = live.entry.is_overdue(self._now(), self._figures.operation_timeout_s)
            events = [live.ended] if overdue else [live.ended, live.overdue]
            await _wait_for_any(events, wait_s)
        return await self.find(operation_id)

    async def list(self, where: Filter) -> list[Operation]:
        entries = await self._store.list_entries(where)
        return [self._present(entry, self._live.get(entry.id)) for entry in entries]

    async def cancel(self, operation_id: str) -> Operation:
        """Raises `Problem`: `operation_not_found`, or `operation_started` where CloudStack may have been asked."""
        live = self._live.get(operation_id)
        if live is None:
            entry = await self._store.find_entry(operation_id)
            if entry is None:
                raise not_found("operation_not_found", f"No operation {operation_id} ever arrived.")
            if entry.status is OperationStatus.CANCELLED:
                return self._present(entry, None)
            raise _started(operation_id)
        cancelled = live.entry.ended(OperationStatus.CANCELLED, self._now())
        try:
            await self._store.mark_cancelled(cancelled)
        except JournalConflict:
            raise _started(operation_id) from None
        live.entry = cancelled
        if live.task is not None:
            live.task.cancel()
        return self._present(cancelled, None)

    def count_live(self) -> int:
        return len(self._live)

    def _launch(self, entry: Entry) -> None:
        live = Live(entry)
        self._live[entry.id] = live
        live.task = asyncio.create_task(self._run(live), name=f"operation {entry.id}")

    async def _run(self, live: Live) -> None:
        operation_id = live.entry.id
        outcome: Outcome | None = None
        try:
            async with self._lanes.lane(live.entry.volume_id or operation_id):
                outcome = await self._pursuit.bring_about(live)
                await self._finisher.finish(live, outcome)
        except JournalConflict:
            if live.entry.status is not OperationStatus.CANCELLED:
                log.exception("Another daemon works on this journal; the operation is left to it.", id=operation_id)
        except Exception as error:
            log.exception("An operation failed in a way nobody foresaw.", id=operation_id)
            await self._give_up(live, outcome, error)
        finally:
            if not self._stopping or live.entry.status.has_ended:
                self._live.pop(operation_id, None)
                live.end()
                self._tell(live.entry)

    async def _give_up(self, live: Live, outcome: Outcome | None, error: Exception) -> None:
        """A fault of ours: what was changed is unknown, and saying so is better than standing still for ever."""
        text = f"The daemon failed in a way nobody foresaw ({type(error).__name__}); its log tells more."
        fault = OperationError("internal_error", FaultKind.FAILED, text)
        try:
            await self._finisher.abandon(live, outcome, fault)
        except Exception:
            log.exception("What is known of the volume could not be written.", id=live.entry.id)
        else:
            return
        ended = live.entry.ended(OperationStatus.FAILED, self._now(), error=fault)
        try:
            await self._store.finish(ended, None)
        except Exception:
            log.exception("Its end could not be written either.", id=live.entry.id)
            return
        live.entry = ended

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
        return live.entry.as_operation(self._now(), self._figures.operation_timeout_s, place, waiting_for)


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
