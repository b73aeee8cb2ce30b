"""A clock that runs fast, and ids that repeat."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID


class FastClock:
    """Real time, `speed` times as fast, from now on; the durations of tests are then those of the field."""

    def __init__(self, speed: float = 100.0) -> None:
        self.speed = speed
        self._began = time.monotonic()
        self._at = datetime.now(UTC)

    def now(self) -> datetime:
        return self._at + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return (time.monotonic() - self._began) * self.speed

    def unix(self) -> float:
        return self.now().timestamp()

    def real(self, seconds: float) -> float:
        """How long this many of our seconds take."""
        return seconds / self.speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(self.real(seconds))


class CountingIds:
    """`00000000-0000-4000-8000-<number>`, in the order in which they are asked for."""

    def __init__(self) -> None:
        self._number = 0

    def new_id(self) -> str:
        self._number += 1
        return str(UUID(int=0x00000000_0000_4000_8000_000000000000 + self._number))
