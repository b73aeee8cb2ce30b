"""The circuits of the targets at work: every call is noted, and a target that is silent is tried by itself.

Source of the classes: `oma.ports.Fault`. A refusal and a failure are answers; a connection that is not made, an answer
that does not come or is none, and a client that has given up on a throttle are silences.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from oma.domain.actions import Upstream
from oma.domain.circuit import Circuit, CircuitRules, CircuitState, Outage
from oma.domain.remote import OUT_OF_TIME
from oma.ports import Clock, Fault, UpstreamError

T = TypeVar("T")

SILENCES: Final = frozenset({Fault.NOT_SENT, Fault.NO_ANSWER, Fault.BROKEN_ANSWER})
ANSWERS_TO_TRIAL: Final = frozenset({Fault.REFUSED})
"""A trial asks for nothing that could fail: any error of a target that is well is a refusal."""
CIRCUIT_OPEN: Final = "circuit_open"
"""The code of a call that was not made."""


class Breaker:
    """One target's circuit. `check` is the trial; it raises `UpstreamError`, and is given `trial_s`.

    `suspect` is set when a trial is wanted at once.
    """

    def __init__(
        self,
        target: str,
        check: Callable[[], Awaitable[str]],
        clock: Clock,
        rules: CircuitRules,
        *,
        trial_s: float,
        suspect: asyncio.Event | None = None,
    ) -> None:
        self.circuit = Circuit(target, rules)
        self._check = check
        self._clock = clock
        self._trial_s = trial_s
        self._suspect = suspect or asyncio.Event()
        self._trial: asyncio.Task[str] | None = None
        self._look: asyncio.Task[str] | None = None
        self._on_change: list[Callable[[], None]] = []

    def on_change(self, tell: Callable[[], None]) -> None:
        """Told whenever the target goes away or comes back."""
        self._on_change.append(tell)

    async def pass_on(self, call: Callable[[], Awaitable[T]]) -> T:
        """Makes the call, or raises at once where the target is away and a trial says that it still is."""
        if self.circuit.is_away:
            await self._require()
        try:
            answer = await call()
        except UpstreamError as error:
            if error.upstream.code == OUT_OF_TIME:
                raise
            silent = error.fault in SILENCES
            self._take(self.circuit.after_silence(self._clock.now()) if silent else self.circuit.after_answer())
            if self.circuit.wants_trial(self._clock.monotonic()):
                self._suspect.set()
            raise
        self._take(self.circuit.after_answer())
        return answer

    async def try_out(self) -> str:
        """One trial, shared by all who ask meanwhile; raises `UpstreamError` where the target is away.

        Without a trial where the target has asked to be left alone.
        """
        outage = self.circuit.outage
        if outage is not None and self.circuit.is_left_alone(self._clock.monotonic()):
            raise self._away(outage)
        if self._trial is None:
            self._take(self.circuit.on_trial())
            self._trial = asyncio.create_task(self._make_trial(), name=f"trial of {self.circuit.target}")
            # Looked at even where everybody who waited has gone away.
            self._trial.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(self._trial)

    async def check(self) -> str:
        """For somebody who only wants to know: while the target is not away it counts like any other call.

        It is made to its end, shared by all who ask meanwhile, also where they lose their patience.
        """
        if self.circuit.is_away:
            return await self.try_out()
        if self._look is None:
            self._look = asyncio.create_task(self.pass_on(self._ask), name=f"look at {self.circuit.target}")
            self._look.add_done_callback(self._end_look)
        return await asyncio.shield(self._look)

    def _end_look(self, done: asyncio.Task[str]) -> None:
        self._look = None
        if not done.cancelled():
            done.exception()

    async def find_outage(self) -> Outage | None:
        try:
            await self.try_out()
        except UpstreamError:
            return self.circuit.outage
        return None

    async def look(self) -> str | None:
        """One turn of the loop: a trial where one is due; a sentence where the circuit has moved."""
        before = self.circuit.is_away
        if self.circuit.wants_trial(self._clock.monotonic()):
            await self.find_outage()
        outage = self.circuit.outage
        if outage is not None:
            return f"{outage.sentence} Runs wait in the queue."
        return f"{self.circuit.target} answers again; the runs go on." if before else None

    async def aclose(self) -> None:
        under_way = {one for one in (self._trial, self._look) if one is not None}
        for one in under_way:
            one.cancel()
        if under_way:
            await asyncio.wait(under_way)

    async def _require(self) -> None:
        """Whoever calls while the target is away is a reason to try it."""
        try:
            await self.try_out()
        except UpstreamError as error:
            raise (self._away(self.circuit.outage) if self.circuit.outage else error) from error

    async def _make_trial(self) -> str:
        try:
            said = await self._ask()
        except UpstreamError as error:
            if error.fault in ANSWERS_TO_TRIAL:
                self._take(self.circuit.after_answered_trial())
            else:
                self._take_silent_trial(error.upstream.text, error.retry_after_s)
            raise
        finally:
            self._trial = None
        self._take(self.circuit.after_answered_trial())
        return said

    def _take_silent_trial(self, reason: str, retry_after_s: float | None) -> None:
        at, now = self._clock.now(), self._clock.monotonic()
        self._take(self.circuit.after_silent_trial(at, now, reason, retry_after_s))

    async def _ask(self) -> str:
        """The bounded check; an answer that nobody here understands is a broken one, whatever it made us raise."""
        target = self.circuit.target
        try:
            async with asyncio.timeout(self._trial_s):
                return await self._check()
        except UpstreamError:
            raise
        except TimeoutError:
            text = f"no answer within {self._trial_s:g} s"
            raise UpstreamError(Fault.NO_ANSWER, Upstream(target, "no_answer", text)) from None
        except Exception as error:
            text = f"its answer makes no sense ({type(error).__name__}: {error})"
            raise UpstreamError(Fault.BROKEN_ANSWER, Upstream(target, "broken_answer", text)) from error

    def _take(self, circuit: Circuit) -> None:
        before, self.circuit = self.circuit, circuit
        if before.is_away is not circuit.is_away:
            for tell in self._on_change:
                tell()

    def _away(self, outage: Outage) -> UpstreamError:
        return UpstreamError(Fault.NOT_SENT, Upstream(self.circuit.target, CIRCUIT_OPEN, outage.sentence))


class Breakers:
    """Those of all targets, by the names that errors carry. Implements `Outages`."""

    def __init__(self, breakers: Iterable[Breaker]) -> None:
        self._of: Mapping[str, Breaker] = {one.circuit.target: one for one in breakers}

    @property
    def outages(self) -> tuple[Outage, ...]:
        """The targets that are away."""
        return tuple(one.circuit.outage for one in self._of.values() if one.circuit.outage is not None)

    @property
    def states(self) -> Mapping[str, CircuitState]:
        return {target: one.circuit.state for target, one in self._of.items()}

    def on_change(self, tell: Callable[[], None]) -> None:
        for one in self._of.values():
            one.on_change(tell)

    async def find_outage(self, target: str) -> Outage | None:
        breaker = self._of.get(target)
        return None if breaker is None else await breaker.find_outage()

    async def look(self) -> str | None:
        said = await asyncio.gather(*(one.look() for one in self._of.values()))
        return " ".join(sentence for sentence in said if sentence is not None) or None

    async def aclose(self) -> None:
        await asyncio.gather(*(one.aclose() for one in self._of.values()))


class Guarded:
    """A port behind its circuit; all methods of it are coroutines. While it is away its `check` is the trial itself."""

    def __init__(self, port: Any, breaker: Breaker) -> None:
        self._port = port
        self._breaker = breaker

    async def check(self) -> str:
        return await self._breaker.check()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._port, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._breaker.pass_on(lambda: method(*args, **kwargs))

        return call
