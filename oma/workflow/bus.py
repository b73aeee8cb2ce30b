"""Committed events, handed to whoever listens in this process: waiting callers, streams, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING

from oma.domain.events import Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BACKLOG = 10_000
"""Events that one slow listener may lag behind; it is cut off beyond that and reads the journal again."""


class EventBus:
    """Fan-out of committed events in order. Publishing never waits for a listener."""

    def __init__(self) -> None:
        self._queues: dict[str | None, set[asyncio.Queue[Event | None]]] = {}
        """By the job listened to; None: every event."""
        self._callbacks: list[Callable[[Event], None]] = []

    def publish(self, events: Iterable[Event]) -> None:
        for event in events:
            for callback in self._callbacks:
                callback(event)
            self._hand_out(event, None)
            if event.job_id is not None:
                self._hand_out(event, event.job_id)

    def _hand_out(self, event: Event, topic: str | None) -> None:
        queues = self._queues.get(topic, set())
        for queue in tuple(queues):
            if queue.qsize() >= BACKLOG:
                queues.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    def on_event(self, callback: Callable[[Event], None]) -> None:
        """Registers a callback that is run at once for every event; it must be quick and not fail."""
        self._callbacks.append(callback)

    @contextmanager
    def subscribe(self, job_id: str | None = None) -> Iterator[Subscription]:
        """Everything that is published from here on, or one job's share of it; leave the block to stop listening."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._queues.setdefault(job_id, set()).add(queue)
        try:
            yield Subscription(queue)
        finally:
            listening = self._queues.get(job_id, set())
            listening.discard(queue)
            if not listening:
                self._queues.pop(job_id, None)

    def close(self) -> None:
        """Ends every subscription: the daemon stops."""
        for queue in [queue for queues in self._queues.values() for queue in queues]:
            queue.put_nowait(None)
        self._queues.clear()


class Subscription:
    """An ordered stream of events that ends when the bus closes or this listener fell too far behind."""

    def __init__(self, queue: asyncio.Queue[Event | None]) -> None:
        self._queue = queue

    async def next(self) -> Event | None:
        """The next event; None at the end of the stream."""
        return await self._queue.get()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self._queue.get()) is not None:
            yield event
