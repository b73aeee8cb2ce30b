"""The one contract of everything that goes on in the background: `run_once`, again and again, until the stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from oma.domain.errors import OmaError
from oma.ports import Clock

log = structlog.get_logger(__name__)


class Loop:
    """Runs `run_once` every `interval_s`, or at once when `wake` is set. It survives whatever a turn raises.

    `run_once` says in one sentence what it found or did, or None where nothing is worth saying. A turn that lasts
    longer than `patience_s` counts as stuck.
    """

    def __init__(
        self,
        name: str,
        run_once: Callable[[], Awaitable[str | None]],
        clock: Clock,
        *,
        interval_s: float,
        patience_s: float = 60.0,
        wake: asyncio.Event | None = None,
    ) -> None:
        self.name = name
        self.interval_s = interval_s
        self.patience_s = patience_s
        self.wake = wake or asyncio.Event()
        self.first_turn = asyncio.Event()
        self._run_once = run_once
        self._clock = clock
        self._turned_at = clock.monotonic()
        self._last_sentence: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.wake.clear()
            self._turned_at = self._clock.monotonic()
            await self._turn()
            self.first_turn.set()
            self._turned_at = self._clock.monotonic()
            await self._pause(stop)

    def is_stuck(self, now: float) -> bool:
        """Whether no turn began or ended for too long; `now` is the clock's monotonic time."""
        return now - self._turned_at > self.interval_s + self.patience_s

    async def _turn(self) -> None:
        try:
            self._say(await self._run_once())
        except OmaError as error:
            self._say(str(error))
        except Exception:
            log.exception("A turn failed in a way nobody foresaw.", loop=self.name)

    def _say(self, sentence: str | None) -> None:
        """The same sentence again is not logged again."""
        if sentence is not None and sentence != self._last_sentence:
            log.info(sentence, loop=self.name)
        self._last_sentence = sentence

    async def _pause(self, stop: asyncio.Event) -> None:
        waiting = [asyncio.ensure_future(event.wait()) for event in (stop, self.wake)]
        await asyncio.wait(waiting, timeout=self.interval_s, return_when=asyncio.FIRST_COMPLETED)
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


class Pulse:
    """Tells the watchdog that we live, but only while every loop turns."""

    def __init__(self, loops: Sequence[Loop], clock: Clock, ping: Callable[[], None]) -> None:
        self._loops = loops
        self._clock = clock
        self._ping = ping

    async def beat(self) -> str | None:
        now = self._clock.monotonic()
        stuck = [loop.name for loop in self._loops if loop.is_stuck(now)]
        if stuck:
            return f"The watchdog is not told: {', '.join(stuck)} made no progress."
        self._ping()
        return None
