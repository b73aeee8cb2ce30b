"""What is paused, in memory, for tests of the API and the page whose other ports are stubs."""

from __future__ import annotations

from collections.abc import Sequence

from oma.domain.controls import ControlChange, Pause, PauseSubject


class MemoryControls:
    def __init__(self) -> None:
        self.pauses: dict[PauseSubject, Pause] = {}
        self.changes: list[ControlChange] = []

    async def list_pauses(self) -> Sequence[Pause]:
        return list(self.pauses.values())

    async def pause(self, change: ControlChange) -> Pause:
        self.changes.append(change)
        known = self.pauses.get(change.what)
        made = Pause(change.what, change.reason or "", change.actor, known.since if known else change.at)
        self.pauses[change.what] = made
        return made

    async def lift(self, change: ControlChange) -> Pause | None:
        self.changes.append(change)
        return self.pauses.pop(change.what, None)
