"""A clock that stands still, and ids that count."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

START = datetime(2026, 1, 31, 3, 0, 0, 123456, tzinfo=UTC)


class StubClock:
    def __init__(self) -> None:
        self.at = START

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class StubIds:
    def __init__(self) -> None:
        self.count = 0

    def new_id(self) -> str:
        self.count += 1
        return f"1d000000-0000-4000-8000-{self.count:012d}"
