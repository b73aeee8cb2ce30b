"""An operation while it runs: its newest entry, and the events by which others wait for it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from volume_daemon.server.records import Entry


@dataclass(slots=True, eq=False)
class Live:
    entry: Entry
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    overdue: asyncio.Event = field(default_factory=asyncio.Event)
    queue_vm_id: str | None = None
    waiting_for: str | None = None
    withdrawn: bool = False
    """Its volume's exports were taken from nbd-server, or may have been."""
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.waiting_for = None
        self.ended.set()
