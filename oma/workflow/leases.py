"""How long each lease of this process lasts at least, by its own monotonic clock.

The database's clock alone decides when a lease has run out. Counted from before it was asked for, the time here is
never longer than there, whatever the wall clock does meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


class LeaseTimes:
    """Kept by the worker, read by the runs."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._ends: dict[str, float] = {}

    def now(self) -> float:
        """To be taken before the database is asked for a lease."""
        return self._monotonic()

    def keep(self, job_ids: Iterable[str], asked_at: float, lease_s: float) -> None:
        """Got or prolonged by what was asked at that time."""
        self._ends.update(dict.fromkeys(job_ids, asked_at + lease_s))

    def drop(self, job_id: str) -> None:
        self._ends.pop(job_id, None)

    def left_s(self, job_id: str) -> float | None:
        """None: this process does not count that lease."""
        end = self._ends.get(job_id)
        return None if end is None else end - self._monotonic()
