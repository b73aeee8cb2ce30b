"""What this process has from the machine that it runs on."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from oma.domain.epochs import Witness


class EpochNote(Protocol):
    """What the state directory remembers."""

    async def read(self) -> Witness | None:
        """None where nothing was ever noted; raises `OSError` where that can't be told."""

    async def write(self, text: str, written: int) -> None: ...


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware, UTC."""

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class Ids(Protocol):
    def new_id(self) -> str:
        """A fresh UUID, lower-case 8-4-4-4-12 (the only form that CloudStack's `customjobid` takes)."""
