"""When to look at a pending job again: densely when it may be ending, seldom before.

Pure arithmetic and remembered durations; no clock, no I/O.
"""

from __future__ import annotations

from collections import deque
from typing import Final

UNLEARNED_SHARE: Final = 0.03
"""Of the time waited so far: a job of unknown length is noticed within this share of its length."""
DUE_SHARE: Final = 0.02
"""The same once it has run as long as the fastest of its kind."""
EARLY_SHARE: Final = 0.25
"""The same before that, when only an early failure can be noticed."""
DUE_FROM: Final = 0.9
"""Of the fastest duration."""
SAMPLES: Final = 15
SECONDS_PER_ROW: Final = 0.0005
"""What reading one listed job costs, on both sides: a long list is swept less often."""
SWEEP_FROM: Final = 5
ROWS_PER_QUERY: Final = 25
"""So many listed rows cost as much as one query for a single job."""


class Durations:
    """How long each command takes on this endpoint, from the last observations that no queue had prolonged."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[float]] = {}

    def learn(self, command: str, seconds: float) -> None:
        self._samples.setdefault(command, deque(maxlen=SAMPLES)).append(seconds)

    def fastest(self, command: str | None) -> float | None:
        """Seconds; None until the command was seen to succeed."""
        samples = self._samples.get(command) if command is not None else None
        return min(samples) if samples else None


def delay_before_look(waited_s: float, fastest_s: float | None, floor_s: float, ceiling_s: float) -> float:
    """Seconds until the next look at a job that has been waited for `waited_s`, within floor and ceiling."""
    if fastest_s is None:
        wanted = UNLEARNED_SHARE * waited_s
    elif waited_s >= DUE_FROM * fastest_s:
        wanted = DUE_SHARE * waited_s
    else:
        wanted = min(EARLY_SHARE * waited_s, DUE_FROM * fastest_s - waited_s)
    return min(max(wanted, floor_s), ceiling_s)


def floor_after_round(rows: int, round_s: float, floor_s: float, ceiling_s: float) -> float:
    """The least time between two rounds: what the last one read and how long it took keep us from hammering.

    Within the ceiling: a round that hung must not put off the looks after it.
    """
    return min(max(floor_s + rows * SECONDS_PER_ROW, round_s), max(floor_s, ceiling_s))


def pays_to_sweep(due: int, rows_listed: int) -> bool:
    """Whether one `listAsyncJobs` is cheaper than asking for each due job; `rows_listed` is how long it was last."""
    return due >= SWEEP_FROM and due >= rows_listed / ROWS_PER_QUERY
