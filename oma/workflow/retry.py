"""The one owner of retries: what may be sent or asked again, a few times, with jitter, within a bound.

Sent again is only what certainly never arrived; anything else whose answer is missing has an unknown outcome and is
looked for instead (`workflow.actions`). A question changes nothing and may be asked again whatever became of it.
"""

from __future__ import annotations

from typing import Final

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_random_exponential

from oma.ports import Clock, Fault, UpstreamError

ATTEMPTS: Final = 10
"""Enough to outlast the restart of a daemon on this machine, which is the likeliest reason for silence."""
TOTAL_S: Final = 20.0
"""Shorter than a call's `expires`, so that the last attempt may still be made."""
LONGEST_PAUSE_S: Final = 5.0


def build_sending_policy(clock: Clock) -> AsyncRetrying:
    """Call it with a coroutine function and its arguments; the last error is raised as it is."""
    return AsyncRetrying(
        retry=retry_if_exception(_never_arrived),
        stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(TOTAL_S),
        wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_S),
        sleep=clock.sleep,
        reraise=True,
    )


def build_asking_policy(clock: Clock) -> AsyncRetrying:
    """For questions between two actions: a moment's silence must not park a run. A refusal is an answer."""
    return AsyncRetrying(
        retry=retry_if_exception(_may_be_asked_again),
        stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(TOTAL_S),
        wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_S),
        sleep=clock.sleep,
        reraise=True,
    )


def _may_be_asked_again(error: BaseException) -> bool:
    return isinstance(error, UpstreamError) and error.fault is not Fault.REFUSED


def _never_arrived(error: BaseException) -> bool:
    return isinstance(error, UpstreamError) and error.fault is Fault.NOT_SENT
