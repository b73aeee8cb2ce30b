"""How a person's pause reaches the runs of this process: each has a brake, which ends it at its next safe point.

The database alone says what is paused; here stands what was last read of it. A run that has not heard of a pause yet
goes on until then, and one that ended at a safe point is not claimed again before the pause is lifted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from oma.domain.circuit import Outage
from oma.domain.controls import Pause, find_pause
from oma.domain.jobs import Job


class StopSign(Protocol):
    """Set when a run has to end at its next safe point."""

    def is_set(self) -> bool: ...

    async def wait(self) -> object: ...


class Brake:
    """The stop sign of one run: the daemon drains, a person has paused it, or another system is away.

    `pause` and `outage` say which.
    """

    def __init__(self, draining: StopSign) -> None:
        self.pause: Pause | None = None
        self.outage: Outage | None = None
        self._draining = draining
        self._pulled = asyncio.Event()

    def pull(self, pause: Pause) -> None:
        """A run that was told to stop stops, also where the pause is lifted meanwhile; it is claimed again then."""
        self.pause = pause
        self._pulled.set()

    def pull_for(self, outage: Outage) -> None:
        """It stops as for a pause, and is claimed again when the other system answers."""
        self.outage = outage
        self._pulled.set()

    def is_set(self) -> bool:
        return self._pulled.is_set() or self._draining.is_set()

    async def wait(self) -> object:
        waiting = [asyncio.ensure_future(sign.wait()) for sign in (self._pulled, self._draining)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return None


class Brakes:
    """The brakes of the runs at work, the pauses as they were last read, and which systems are away."""

    def __init__(self) -> None:
        self.pauses: tuple[Pause, ...] = ()
        self.outages: tuple[Outage, ...] = ()
        self._held: dict[Brake, Job] = {}

    @contextmanager
    def held(self, job: Job, draining: StopSign) -> Iterator[Brake]:
        """The brake of one run, as long as it is at work."""
        brake = Brake(draining)
        self._held[brake] = job
        self._look(brake, job)
        try:
            yield brake
        finally:
            del self._held[brake]

    def set_pauses(self, pauses: Sequence[Pause]) -> bool:
        """Pulls the brake of every run that one of them covers; whether any pause was lifted."""
        lifted = {pause.what for pause in self.pauses} - {pause.what for pause in pauses}
        self.pauses = tuple(pauses)
        for brake, job in self._held.items():
            self._look(brake, job)
        return bool(lifted)

    def set_outages(self, outages: Sequence[Outage]) -> None:
        """Pulls the brake of every run: each needs both of the other systems."""
        self.outages = tuple(outages)
        for brake, job in self._held.items():
            self._look(brake, job)

    def is_paused(self, job: Job) -> bool:
        return find_pause(self.pauses, job.context_id) is not None

    def _look(self, brake: Brake, job: Job) -> None:
        pause = find_pause(self.pauses, job.context_id)
        if pause is not None and brake.pause is None:
            brake.pull(pause)
        if self.outages and brake.outage is None:
            brake.pull_for(self.outages[0])


def stopped_sentence(sign: StopSign, where: str) -> str:
    """What a run says that ended at a safe point; `where` as in "in reattach-all-volumes"."""
    stopped = f"Stopped at a safe point {where}"
    if isinstance(sign, Brake) and sign.pause is not None:
        return f"{stopped}: {sign.pause.sentence.rstrip('.')}. Let it go on: {sign.pause.what.lift_command}"
    if isinstance(sign, Brake) and sign.outage is not None:
        return f"{stopped}: {sign.outage.sentence} The run waits in the queue and goes on by itself."
    return f"{stopped}; the run goes on after the restart."
