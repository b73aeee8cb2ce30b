"""The one owner of retries: what may be sent or asked again, how often, with jitter, within a bound; per target.

Sent again is only what certainly never arrived; anything else whose answer is missing has an unknown outcome and is
looked for instead (`workflow.actions`). A question changes nothing and may be asked again whatever became of it. What
the client below has tried within a policy of its own already (`UpstreamError.spent`: a throttle) is not tried again
here: nothing retries inside a retry. A refusal, and so a 401, is an answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from oma.domain.circuit import CLOUDSTACK, VOLUME_DAEMON
from oma.ports import Clock, Fault, UpstreamError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How one target is tried again. Pauses double from `first_pause_s` to `longest_pause_s`, each cut by up to half.

    `total_s` bounds the tries together: shorter than a call's `expires`, so that the last one may still be made.
    Ten of them outlast the restart of a daemon on this machine, which is the likeliest reason for silence.
    """

    attempts: int = 10
    total_s: float = 20.0
    first_pause_s: float = 0.2
    longest_pause_s: float = 5.0

    def pause_s(self, attempt: int) -> float:
        """After the attempt of this number, from 1."""
        longest = min(self.first_pause_s * 2 ** min(attempt - 1, 30), self.longest_pause_s)
        return float(longest * random.uniform(0.5, 1.0))  # noqa: S311 - jitter is no secret


@dataclass(frozen=True, slots=True)
class RetryPolicies:
    """One for each target."""

    cloudstack: RetryPolicy = field(default_factory=RetryPolicy)
    volume_daemon: RetryPolicy = field(default_factory=RetryPolicy)

    def of(self, error: UpstreamError) -> RetryPolicy:
        return {CLOUDSTACK: self.cloudstack, VOLUME_DAEMON: self.volume_daemon}.get(
            error.upstream.system, self.volume_daemon
        )


SENT_AGAIN: Final = frozenset({Fault.NOT_SENT})
ASKED_AGAIN: Final = frozenset(Fault) - {Fault.REFUSED}
CLASSES: Final[Mapping[str, frozenset[Fault]]] = {"send": SENT_AGAIN, "ask": ASKED_AGAIN}


def build_sending_policy(
    clock: Clock, policies: RetryPolicies, is_stopping: Callable[[], bool] = lambda: False
) -> AsyncRetrying:
    """Call it with a coroutine function and its arguments; the last error is raised as it is.

    Once `is_stopping`, nothing is tried again.
    """
    return _build(clock, policies, SENT_AGAIN, is_stopping)


def build_asking_policy(
    clock: Clock, policies: RetryPolicies, is_stopping: Callable[[], bool] = lambda: False
) -> AsyncRetrying:
    """For questions between two actions: a moment's silence must not park a run."""
    return _build(clock, policies, ASKED_AGAIN, is_stopping)


def _build(
    clock: Clock, policies: RetryPolicies, again: frozenset[Fault], is_stopping: Callable[[], bool]
) -> AsyncRetrying:
    tries = _Tries(clock, policies, is_stopping)
    return AsyncRetrying(
        retry=retry_if_exception(
            lambda error: isinstance(error, UpstreamError) and error.fault in again and not error.spent
        ),
        stop=tries.are_over,
        wait=tries.next_pause_s,
        sleep=clock.sleep,
        reraise=True,
    )


class _Tries:
    """Of one call, by the clock that was handed in; tenacity's own is always the machine's."""

    def __init__(self, clock: Clock, policies: RetryPolicies, is_stopping: Callable[[], bool]) -> None:
        self._clock = clock
        self._policies = policies
        self._is_stopping = is_stopping
        self._began = clock.monotonic()

    def next_pause_s(self, state: RetryCallState) -> float:
        """Never before the target wants to hear of us again. tenacity asks for this before it asks `are_over`."""
        error = _error_of(state)
        return max(self._policies.of(error).pause_s(state.attempt_number), error.retry_after_s or 0.0)

    def are_over(self, state: RetryCallState) -> bool:
        policy = self._policies.of(_error_of(state))
        spent_s = self._clock.monotonic() - self._began + state.upcoming_sleep
        return self._is_stopping() or state.attempt_number >= policy.attempts or spent_s > policy.total_s


def _error_of(state: RetryCallState) -> UpstreamError:
    error = state.outcome.exception() if state.outcome is not None else None
    if not isinstance(error, UpstreamError):
        raise TypeError("only an upstream's error is tried again")
    return error
