"""The way of a request and of its answer, and what may happen to either.

Requests belong to the world as soon as they were sent: one that is under way arrives although its sender has died.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any

from tests.simulation.virtual_time import Life, context_of


class Mishap(StrEnum):
    """What becomes of one request."""

    LOST_REQUEST = "lost request"
    """It never arrives, and its sender does not know."""
    LOST_ANSWER = "lost answer"
    """It is carried out, its answer is lost."""
    DUPLICATE = "duplicate"
    """It arrives twice."""
    DELAY = "delay"
    """It arrives late; its sender may have given it up by then."""
    REORDERING = "reordering"
    """The one sent after it arrives before it."""
    LATE_AFTER_DEATH = "delivered after the take-over"
    """Its sender dies as soon as it has sent it; it arrives late."""


@dataclass
class Planned:
    """Strikes the `nth` request from now whose name is `name`."""

    mishap: Mishap
    name: str
    nth: int = 1
    delay_s: float = 0.0
    struck: bool = False


class Silence(Exception):
    """No answer came: the connection was cut, or nothing came in time."""


class Refused(Exception):
    """Nobody listens there: the request certainly did not arrive."""


@dataclass
class Network:
    """All lines of one world. `strike` is told of every mishap that happens."""

    rng: Random
    strike: Callable[[str], None]
    planned: list[Planned] = field(default_factory=list)
    under_way: int = 0
    """Requests that have not arrived yet."""
    _held: list[Callable[[], None]] = field(default_factory=list)

    def take(self, name: str) -> Planned | None:
        found = None
        for one in self.planned:
            if one.struck or one.name != name:
                continue
            one.nth -= 1
            if one.nth == 0 and found is None:
                one.struck = True
                found = one
        return found

    def latency_s(self) -> float:
        return self.rng.uniform(0.001, 0.02)

    async def exchange(
        self, life: Life, name: str, serve: Callable[[], Awaitable[Any]], is_up: Callable[[], bool], timeout_s: float
    ) -> Any:
        """The answer of `serve`; raises `Silence`, `Refused`, and what the server raised."""
        life.require()
        if not is_up():
            raise Refused
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        fate = self.take(name)
        journey = _Journey(self, serve, is_up, answer, fate)
        if fate is not None and fate.mishap is not Mishap.REORDERING:
            self.strike(fate.mishap.value)
        if fate is not None and fate.mishap is Mishap.REORDERING:
            self._held.append(journey.set_out)
            loop.call_later(3.0, self.release, journey.set_out, context=context_of(None))
        else:
            journey.set_out()
            if self._held:
                loop.call_later(0.05, self._release_all, context=context_of(None))
        if fate is not None and fate.mishap is Mishap.LATE_AFTER_DEATH:
            loop.call_later(0.001, life.kill, context=context_of(None))
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise Silence from None

    def release(self, held: Callable[[], None]) -> None:
        if held in self._held:
            self._held.remove(held)
            held()

    def _release_all(self) -> None:
        """Something that was sent later has arrived."""
        held, self._held = self._held, []
        for one in held:
            self.strike(Mishap.REORDERING.value)
            one()


class _Journey:
    """One request, from its sending to its answer."""

    def __init__(
        self,
        network: Network,
        serve: Callable[[], Awaitable[Any]],
        is_up: Callable[[], bool],
        answer: asyncio.Future[Any],
        fate: Planned | None,
    ) -> None:
        self._network = network
        self._serve = serve
        self._is_up = is_up
        self._answer = answer
        self._mishap = fate.mishap if fate is not None else None
        self._delay_s = fate.delay_s if fate is not None else 0.0
        self._loop = asyncio.get_running_loop()
        self._context = context_of(None)

    def set_out(self) -> None:
        latency_s = self._network.latency_s()
        match self._mishap:
            case Mishap.LOST_REQUEST:
                self._loop.call_later(latency_s, self._cut, context=self._context)
                return
            case Mishap.DELAY | Mishap.LATE_AFTER_DEATH:
                latency_s += self._delay_s
            case Mishap.DUPLICATE:
                self._send(latency_s + self._delay_s, first=False)
            case _:
                pass
        self._send(latency_s, first=True)

    def _send(self, latency_s: float, *, first: bool) -> None:
        self._network.under_way += 1
        self._loop.call_later(latency_s, self._arrive, first, context=self._context)

    def _arrive(self, first: bool) -> None:
        self._network.under_way -= 1
        self._loop.create_task(self._carry_out(first), context=self._context)

    async def _carry_out(self, first: bool) -> None:
        if not self._is_up():
            self._cut()
            return
        result: Any = None
        error: Exception | None = None
        try:
            result = await self._serve()
        except asyncio.CancelledError:
            # Whoever served it died over it.
            self._cut()
            return
        except Exception as problem:  # noqa: BLE001 - it is the caller's answer
            error = problem
        if not first:
            return
        if self._mishap is Mishap.LOST_ANSWER:
            self._cut()
            return
        await asyncio.sleep(self._network.latency_s())
        if self._answer.done():
            return
        if error is not None:
            self._answer.set_exception(error)
        else:
            self._answer.set_result(result)

    def _cut(self) -> None:
        if not self._answer.done():
            self._answer.set_exception(Silence())
