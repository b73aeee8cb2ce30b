"""Which process is to die at which of its steps, one life after the other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from tests.simulation.virtual_time import Life

RECOVERY_STEPS = 400
"""What is left for a later life to do is less than what the first one had to: within so many steps it dies."""


class Crashes:
    """`strike` is told the name of whoever dies by it, and of nobody who dies of something else."""

    def __init__(self, strike: Callable[[str], None]) -> None:
        self._strike = strike
        self._waiting: defaultdict[str, list[int]] = defaultdict(list)
        """By process: steps from the beginning of a life."""
        self._born: defaultdict[str, int] = defaultdict(int)

    def begin(self, life: Life) -> None:
        """A life of the process of this name begins."""
        self._born[life.name] += 1
        self._arm(life)

    def add(self, life: Life, step: int) -> None:
        """It dies before its next `step`-th step; where it is dead or is to die already, its next life does."""
        self._waiting[life.name].append(step)
        if not life.dead:
            self._arm(life)

    def end(self, life: Life) -> None:
        """It has died; what it was to die of, if not of that, waits for its next life."""
        if life.dies_of is not None and life.die_at is not None:
            self._waiting[life.name].insert(0, life.die_at - life.steps)

    def clear(self, life: Life) -> None:
        life.die_at = life.dies_of = None
        self._waiting[life.name].clear()

    def _arm(self, life: Life) -> None:
        if life.die_at is not None or not self._waiting[life.name]:
            return

        def told() -> None:
            life.dies_of = None
            self._strike(life.name)

        step = self._waiting[life.name].pop(0)
        life.die_at = life.steps + (step if self._born[life.name] == 1 else 1 + step % RECOVERY_STEPS)
        life.dies_of = told
