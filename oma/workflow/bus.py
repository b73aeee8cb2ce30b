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
        self._queues: set[asyncio.Queue[Event | None]] = set()
        self._callbacks: list[Callable[[Event], None]] = []

    def publish(self, events: Iterable[Event]) -> None:
        for event in events:
            for callback in self._callbacks:
                callback(event)
            for queue in tuple(self._queues):
                if queue.qsize() >= BACKLOG:
                    self._queues.discard(queue)
                    queue.put_nowait(None)
                else:
                    queue.put_nowait(event)

    def on_event(self, callback: Callable[[Event], None]) -> None:
        """Registers a callback that is run at once for every event; it must be quick and not fail."""
        self._callbacks.append(callback)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Everything that is published from here on; leave the block to stop listening."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield Subscription(queue)
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """Ends every subscription: the daemon stops."""
        for queue in tuple(self._queues):
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
