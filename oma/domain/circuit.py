"""The circuit of one target, as a value: closed, open, half-open, and what moves it. Pure.

A circuit does not open by counting alone: after some silences in a row the target is asked by itself, and only where
that trial is silent too is it taken for away. So one command that hangs fails its own run, and a target that is down
fails none: runs wait in the queue until a trial is answered.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

CLOUDSTACK = "CloudStack"
VOLUME_DAEMON = "Volume Daemon"
TARGETS = {CLOUDSTACK: "cloudstack", VOLUME_DAEMON: "volume_daemon"}
"""Names as errors carry them, and as metrics, health and settings do."""


LONGEST_REST_S: Final = 300.0
"""However long a target, or something in front of it, asks to be left alone: then it is tried again."""


class CircuitState(StrEnum):
    CLOSED = "closed"
    """Calls go through."""
    OPEN = "open"
    """The target is away; runs wait, and a trial is made from time to time."""
    HALF_OPEN = "half_open"
    """Such a trial is under way."""


@dataclass(frozen=True, slots=True)
class CircuitRules:
    """`silences` in a row make a target suspect; trials of one that is away are `pause_min_s`, at last `pause_max_s`
    apart.
    """

    silences: int = 5
    pause_min_s: float = 1.0
    pause_max_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Outage:
    """A target that is away, as people are told."""

    target: str
    since: datetime
    reason: str
    until: datetime | None = None
    """When the target has asked to be left alone until then: it has answered, but takes no calls."""

    @property
    def sentence(self) -> str:
        name = self.target if self.target == CLOUDSTACK else f"The {self.target}"
        reason = self.reason.rstrip(".")
        if self.until is not None:
            return f"{name} asks to be left alone until {_as_text(self.until)} ({reason})."
        return f"{name} has not answered since {_as_text(self.since)} ({reason})."


@dataclass(frozen=True, slots=True)
class Circuit:
    """One target's circuit between two events; each method gives the circuit after one."""

    target: str
    rules: CircuitRules
    state: CircuitState = CircuitState.CLOSED
    silences: int = 0
    """In a row, since the last answer."""
    silent_since: datetime | None = None
    outage: Outage | None = None
    trials: int = 0
    """In vain, since it opened."""
    next_trial_at: float | None = None
    """On the monotonic clock, like `asked_until`: whoever sets the wall clock makes nobody wait."""
    asked_until: float | None = None
    """Until when the target itself asked to be left alone (`Retry-After`)."""

    @property
    def is_away(self) -> bool:
        return self.state is not CircuitState.CLOSED

    def wants_trial(self, now: float) -> bool:
        """Suspect, or away for long enough since the last trial."""
        if self.state is CircuitState.CLOSED:
            return self.silences >= self.rules.silences
        return self.state is CircuitState.OPEN and (self.next_trial_at is None or now >= self.next_trial_at)

    def is_left_alone(self, now: float) -> bool:
        return self.is_away and self.asked_until is not None and now < self.asked_until

    def after_answer(self) -> Circuit:
        """Of any call. One that was under way when the circuit opened does not close it: only a trial does."""
        return self if self.is_away else replace(self, silences=0, silent_since=None)

    def after_silence(self, at: datetime) -> Circuit:
        if self.is_away:
            return self
        return replace(self, silences=self.silences + 1, silent_since=self.silent_since or at)

    def on_trial(self) -> Circuit:
        return replace(self, state=CircuitState.HALF_OPEN) if self.is_away else self

    def after_answered_trial(self) -> Circuit:
        return Circuit(self.target, self.rules)

    def after_silent_trial(self, at: datetime, now: float, reason: str, retry_after_s: float | None = None) -> Circuit:
        """Away, or away still. A target that says when to come back is not asked before, but for `LONGEST_REST_S`.

        `at` is the time that people are told, `now` the same moment on the monotonic clock.
        """
        rest_s = None if retry_after_s is None else min(max(retry_after_s, 0.0), LONGEST_REST_S)
        until = None if rest_s is None else at + timedelta(seconds=rest_s)
        pause_s = min(self.rules.pause_min_s * 2 ** min(self.trials, 20), self.rules.pause_max_s)
        since = self.outage.since if self.outage else self.silent_since or at
        return replace(
            self,
            state=CircuitState.OPEN,
            outage=Outage(self.target, since, reason, until),
            trials=self.trials + 1,
            next_trial_at=now + max(pause_s, rest_s or 0.0),
            asked_until=None if rest_s is None else now + rest_s,
        )


def _as_text(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
