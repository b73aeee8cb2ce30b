"""Who came first is through first: a bound on how many runs detach at once, so that the OMA's queue starts early.

All VMs share that one queue. A hundred runs that detach side by side reach it late, and all at the same moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

AT_ONCE = 6
LONGEST_TURN_S = 15.0
"""A run that is held up longer gives its place to the next one and goes on: nobody blocks the others."""


class Pace:
    """Turns, in the order of asking."""

    def __init__(self, at_once: int = AT_ONCE, longest_turn_s: float = LONGEST_TURN_S) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._longest_turn_s = longest_turn_s

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a place; it is free again when the block is left, or after the longest turn."""
        await self._places.acquire()
        held = True

        def give_back() -> None:
            nonlocal held
            if held:
                held = False
                self._places.release()

        timer = asyncio.get_running_loop().call_later(self._longest_turn_s, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()
