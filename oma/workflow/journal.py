"""The only writer of job, step and action state: a change and its event in one transaction, then told to listeners."""

from __future__ import annotations

from oma.domain.changes import Change
from oma.domain.jobs import Lease
from oma.ports import Clock, JournalStore
from oma.workflow.bus import EventBus


class Journal:
    """The journal of one claimed job. Whoever has lost the lease gets `LeaseLost` and has written nothing."""

    def __init__(self, store: JournalStore, lease: Lease, bus: EventBus, clock: Clock) -> None:
        self._store = store
        self._lease = lease
        self._bus = bus
        self._clock = clock

    async def write(self, *changes: Change) -> None:
        """Commits all of the changes or none; returns after COMMIT. Raises `LeaseLost` or `ConcurrentChange`."""
        self._bus.publish(await self._store.apply(self._lease, changes, self._clock.now()))
