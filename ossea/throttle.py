"""An account that is throttled: CloudStack says when it wants to hear from us again, and then calls go one by one.

Source: `ApiRateLimitServiceImpl` counts the calls of an account in a window of time and answers 429 to those above the
limit, with the milliseconds until the window ends. A 429 was not executed, so that the call may be sent again. All that
wait would come back at the same moment and be thrown back again, some of them for ever; so while it is crowded they
keep their places, and the first one alone finds out whether there is room. That is told at once; where an answer is
slow, the next one need not wait for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from ossea.clock import Monotonic
from ossea.errors import CloudStackError, ErrorKind

T = TypeVar("T")

CROWDED_S: Final = 5.0
"""How long after the last 429 calls still go one by one."""
TURN_S: Final = 1.0
"""Longest time that an answer holds up the next call: CloudStack counts a call before it does anything for it."""
LINE_S: Final = 120.0
"""How long a call waits for its turn."""
JITTER_S: Final = 0.05
"""At most so much later than CloudStack said: several programs may share the account."""


@dataclass(frozen=True, slots=True)
class ThrottlePolicy:
    """How a throttled call comes back: when CloudStack says, but never later than so long after its turn has come."""

    total_s: float = 30.0
    pause_s: float = 1.0
    """Where CloudStack does not say when to come back."""
    line_s: float = LINE_S
    """Whose turn has not come for so long is told the last 429."""


class Throttle:
    """One account's."""

    def __init__(
        self,
        policy: ThrottlePolicy,
        monotonic: Monotonic,
        *,
        turn_s: float = TURN_S,
        crowded_s: float = CROWDED_S,
    ) -> None:
        self._policy = policy
        self._monotonic = monotonic
        self._turn_s = turn_s
        self._crowded_s = crowded_s
        self._crowded_until = 0.0
        self._held_until = 0.0
        self._last: CloudStackError | None = None
        self._turn = asyncio.Lock()

    async def let_through(self, send: Callable[[], Awaitable[T]]) -> T:
        """The answer; the last 429 where the policy is used up, and any other error as it is."""
        if self._monotonic() >= self._crowded_until:
            try:
                return await send()
            except CloudStackError as error:
                if error.kind is not ErrorKind.THROTTLED or not self._hold(self._pause_s(error)):
                    raise
        place = _Place(self._turn)
        try:
            await self._queue(place)

            async def attempt() -> T:
                await place.take()
                if self._monotonic() >= self._crowded_until:
                    place.leave()  # the crowd is gone, and with it the line
                await asyncio.sleep(max(0.0, self._held_until - self._monotonic()))
                return await self._send(send, place)

            answer: T = await self._build_policy(self._monotonic())(attempt)
            return answer
        finally:
            place.leave()

    async def _queue(self, place: _Place) -> None:
        """Raises the last 429 where the turn does not come."""
        try:
            async with asyncio.timeout(self._policy.line_s):
                await place.take()
        except TimeoutError:
            last = self._last
            if last is None:
                raise
            raise CloudStackError(
                last.kind, last.command, last.text, errorcode=last.errorcode, retry_after_s=last.retry_after_s
            ) from None

    async def _send(self, send: Callable[[], Awaitable[T]], place: _Place) -> T:
        """Leaves the place where the answer is slow; who is thrown back at once keeps it."""
        sent = asyncio.ensure_future(send())
        try:
            await asyncio.wait({sent}, timeout=self._turn_s)
            if not sent.done():
                place.leave()
            return await sent
        finally:
            sent.cancel()

    def _build_policy(self, began: float) -> AsyncRetrying:
        def is_over(state: RetryCallState) -> bool:
            left_s = self._policy.total_s - (self._monotonic() - began)
            return state.upcoming_sleep > left_s or not self._hold(state.upcoming_sleep)

        def pause_s(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome is not None else None
            return self._pause_s(error) + random.uniform(0, JITTER_S)  # noqa: S311 - jitter is no secret

        return AsyncRetrying(
            retry=retry_if_exception(_is_throttled), stop=is_over, wait=pause_s, sleep=asyncio.sleep, reraise=True
        )

    def _pause_s(self, error: BaseException | None) -> float:
        if isinstance(error, CloudStackError):
            self._last = error
        wanted_s = error.retry_after_s if isinstance(error, CloudStackError) else None
        return self._policy.pause_s if wanted_s is None else wanted_s

    def _hold(self, pause_s: float) -> bool:
        """All wait for so long, one after the other; False where that is longer than anybody may wait."""
        if pause_s > self._policy.total_s:
            return False
        now = self._monotonic()
        self._held_until = max(self._held_until, now + pause_s)
        self._crowded_until = max(self._crowded_until, now + pause_s + self._crowded_s)
        return True


class _Place:
    """One call's in the queue; taken again where it was left."""

    def __init__(self, turn: asyncio.Lock) -> None:
        self._turn = turn
        self._is_held = False

    async def take(self) -> None:
        if not self._is_held:
            await self._turn.acquire()
            self._is_held = True

    def leave(self) -> None:
        if self._is_held:
            self._is_held = False
            self._turn.release()


def _is_throttled(error: BaseException) -> bool:
    return isinstance(error, CloudStackError) and error.kind is ErrorKind.THROTTLED
