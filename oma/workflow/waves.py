"""Analyses go in waves: whoever waits while one is under way goes together in the next, so that questions are shared.

A hundred VMs that are asked about at once need a few lists of CloudStack, not a hundred of each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

SIZE = 50
"""Analyses in one wave: large enough to share the lists, small enough that the first results come soon."""
LANES = 2
"""Waves at once: one that waits for a silent system does not hold up all the others."""


class Waves:
    """A gate that opens for many at once; use it with `async with`."""

    def __init__(self, size: int = SIZE, lanes: int = LANES) -> None:
        self._size = size
        self._free = lanes
        self._waiting: deque[asyncio.Future[_Wave]] = deque()
        self._wave_of: dict[asyncio.Task[object], _Wave] = {}
        self._opening = False

    async def __aenter__(self) -> None:
        mine: asyncio.Future[_Wave] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        self._open_soon()
        try:
            wave = await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._leave(mine.result())
            elif mine in self._waiting:
                self._waiting.remove(mine)
            raise
        self._wave_of[_current_task()] = wave

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(self._wave_of.pop(_current_task()))

    def _leave(self, wave: _Wave) -> None:
        wave.members -= 1
        if wave.members == 0:
            self._free += 1
            self._open_soon()

    def _open_soon(self) -> None:
        """At the end of this turn of the loop, so that those who come at the same moment go together."""
        if not self._opening and self._free and self._waiting:
            self._opening = True
            asyncio.get_running_loop().call_soon(self._open)

    def _open(self) -> None:
        self._opening = False
        members = [self._waiting.popleft() for _ in range(min(self._size, len(self._waiting)))]
        members = [one for one in members if not one.done()]
        if not members:
            self._open_soon()
            return
        self._free -= 1
        wave = _Wave(len(members))
        for one in members:
            one.set_result(wave)
        self._open_soon()


class _Wave:
    """How many of a wave are still at work."""

    def __init__(self, members: int) -> None:
        self.members = members


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a wave is entered by a task")
    return task
