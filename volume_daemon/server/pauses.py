"""How long to wait before asking somebody again who does not answer."""

from __future__ import annotations

import asyncio


class Pauses:
    """Grows from `first_s` to `longest_s`, doubling; `reset` after an answer."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s

    async def pause(self, at_least_s: float = 0.0) -> None:
        wait_s = max(self._next_s, at_least_s)
        self._next_s = min(self._next_s * 2, self._longest_s)
        await asyncio.sleep(wait_s)

    def reset(self) -> None:
        self._next_s = self._first_s


class Patience:
    """Pauses as long as it makes sense to wait for somebody: `longest_s` seconds from the first one on."""

    def __init__(self, pauses: Pauses, longest_s: float) -> None:
        self._pauses = pauses
        self._longest_s = longest_s
        self._ends_at: float | None = None

    def left_s(self) -> float:
        """Seconds, counted from when it was first asked; 0: the time is over."""
        now = asyncio.get_running_loop().time()
        if self._ends_at is None:
            self._ends_at = now + self._longest_s
        return max(0.0, self._ends_at - now)

    async def pause(self, at_least_s: float = 0.0) -> bool:
        """False, at once, where the time is over."""
        left_s = self.left_s()
        if left_s <= 0:
            return False
        await self._pauses.pause(min(at_least_s, left_s))
        return True
