"""What the watcher looks for: jobs of our own, and failovers, that make no progress."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oma.domain.states import JobState


@dataclass(frozen=True, slots=True)
class SlowJob:
    """A job of ours that has not ended. `since`: it was begun, resumed, given back, or let go on after a pause."""

    id: str
    context_id: str
    vm_name: str
    state: JobState
    phase: str | None
    holder: str | None
    since: datetime
