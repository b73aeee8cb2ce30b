"""What a test may do to the next calls of a fake."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from oma.domain.actions import Upstream
from oma.ports import Fault, UpstreamError


@dataclass
class Weather:
    """How the other side behaves; everything is off by default."""

    system: str
    silent: bool = False
    """No call is answered and none arrives."""
    lose_answers: list[str] = field(default_factory=list)
    """Calls of these names: executed, the answer lost. Each entry is used once."""
    lose_requests: list[str] = field(default_factory=list)
    """Calls of these names never arrive, and the caller does not know. Each entry is used once."""
    not_sent: list[str] = field(default_factory=list)
    """Calls of these names certainly don't arrive. Each entry is used once."""
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """A call of this name waits here before it is looked at."""
    asked: list[str] = field(default_factory=list)
    """Every call's name, in order."""
    silent_for: set[str] = field(default_factory=set)
    """Only these calls are not answered."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def until_asked(self, name: str) -> None:
        """Returns as soon as a call of this name has come in."""
        while name not in self.asked:
            await self._news.wait()

    async def pass_by(self, name: str) -> None:
        """Raises `UpstreamError` where the call does not get through."""
        self.asked.append(name)
        self._news.set()
        self._news = asyncio.Event()
        gate = self.gates.get(name)
        if gate is not None:
            await gate.wait()
        await asyncio.sleep(0)
        if self.silent or name in self.silent_for:
            raise self.no_answer()
        if _take(self.not_sent, name):
            raise UpstreamError(Fault.NOT_SENT, Upstream(self.system, "not_sent", "connection refused"))
        if _take(self.lose_requests, name):
            raise self.no_answer()

    def answer(self, name: str) -> None:
        """Raises where the answer gets lost on its way back."""
        if _take(self.lose_answers, name):
            raise self.no_answer()

    def no_answer(self) -> UpstreamError:
        return UpstreamError(Fault.NO_ANSWER, Upstream(self.system, "no_answer", "the connection was cut"))


def _take(names: list[str], name: str) -> bool:
    if name not in names:
        return False
    names.remove(name)
    return True
