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
