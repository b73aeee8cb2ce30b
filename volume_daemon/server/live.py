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
    waits: int = 0
    """How often it had to wait before it could ask CloudStack; what was seen before a wait is old after it."""
    withdrawn: bool = False
    """Its volume's exports were taken from nbd-server, or may have been."""
    turning_point: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever decides between taking it back and carrying it out."""
    is_decided: bool = False
    """What CloudStack has to do with it is known; it can no longer be taken back."""
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None

    def disarm(self) -> None:
        """It is not overdue, and will not become so until the clock is started again."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.overdue.clear()

    def end(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.waiting_for = None
        self.ended.set()
