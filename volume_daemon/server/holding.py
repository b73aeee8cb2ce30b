"""The journal is one daemon's at a time, also where another is started on another port, or on another machine.

Two that go on with the same operations would send the same calls and write the same files. On MariaDB a hold can be
lost at any moment (the server's restart, a KILL, a proxy's idle cut), and another has it at once. So it is asked for
again in each write to the journal and right before each call to CloudStack, and whoever has lost it starts over from
the journal as after a crash, also where it gets it back: another may have worked in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import TypeVar

from database.errors import DatabaseUnavailable
from database.hold import LOOK_S, Hold, build_hold

T = TypeVar("T")
PROGRAM = "volume-daemon"
IN_USE = "Another Volume Daemon works on this database; this one waits until that one has ended."
LOST = "The hold on the journal was lost; nothing is begun or sent until it is back and all that is open is read anew."


class JournalInUse(Exception):
    """Another daemon works on the journal."""


class Holding:
    """One daemon's claim to the journal in the database of `url`."""

    def __init__(self, url: str, look_s: float = LOOK_S) -> None:
        self._url = url
        self._look_s = look_s
        self._hold: Hold | None = None
        self._taking: int | None = None
        self._lock = Lock()
        """A hold's methods belong into one thread at a time."""
        self._turn = asyncio.Lock()
        """However many ask, a server that does not answer keeps one thread."""

    async def take(self) -> None:
        """Only while nothing is at work. Raises `JournalInUse`, `DatabaseUnavailable`, `OSError`."""
        if self._hold is None:
            self._hold = build_hold(self._url, PROGRAM)
        self._taking = await self._in_thread(self._hold.take)
        if self._taking is None:
            raise JournalInUse(IN_USE)

    async def keep(self) -> None:
        """Returns once it is lost."""
        while True:
            if not await self._in_thread(partial(self._is_ours, self._taking)):
                return
            await asyncio.sleep(self._look_s)

    async def require(self) -> None:
        """Returns where it has not been lost since it was taken; else never: whoever asks is let go of soon."""
        if not await self._in_thread(partial(self._is_ours, self._taking)):
            await asyncio.get_running_loop().create_future()

    def build_check(self) -> Callable[[], None]:
        """For a thread that writes: raises `DatabaseUnavailable` where it was lost since now, also if it is back."""
        return partial(self._check, self._taking)

    def _check(self, taking: int | None) -> None:
        with self._lock:
            if not self._is_ours(taking):
                raise DatabaseUnavailable(LOST)

    def _is_ours(self, taking: int | None) -> bool:
        return self._hold is not None and taking is not None and self._hold.is_ours(taking)

    async def _in_thread(self, ask: Callable[[], T]) -> T:
        async with self._turn:
            asking = asyncio.ensure_future(asyncio.to_thread(self._one_at_a_time, ask))
            try:
                return await asyncio.shield(asking)
            except asyncio.CancelledError:
                await asyncio.wait({asking})  # else it would be taken after it was given back
                raise

    def _one_at_a_time(self, ask: Callable[[], T]) -> T:
        with self._lock:
            return ask()

    async def release(self) -> None:
        if self._hold is not None:
            await self._in_thread(self._hold.release)
