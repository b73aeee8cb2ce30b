"""The policy of each target: which classes, how often, how long, and that a target that says when is heeded."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from oma.domain.actions import Upstream
from oma.domain.circuit import CLOUDSTACK, VOLUME_DAEMON
from oma.ports import Fault, UpstreamError
from oma.workflow.retry import (
    ASKED_AGAIN,
    SENT_AGAIN,
    RetryPolicies,
    RetryPolicy,
    build_asking_policy,
    build_sending_policy,
)

FEW = RetryPolicies(RetryPolicy(attempts=3), RetryPolicy(attempts=5))
SHORT = RetryPolicies(RetryPolicy(attempts=100, total_s=10.0, first_pause_s=1.0, longest_pause_s=4.0))


class Watch:
    """A clock of which only the policy's pauses make use."""

    def __init__(self) -> None:
        self.at = 100.0
        self.pauses: list[float] = []

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.at += seconds


class Caller:
    """Fails as told; answers from the call of the number `answers_at` on."""

    def __init__(self, fault: Fault, system: str = CLOUDSTACK, answers_at: int = 10_000, **more: object) -> None:
        self.error = UpstreamError(fault, Upstream(system, "x", "y"), **more)  # type: ignore[arg-type]  # a test's own
        self.answers_at = answers_at
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls >= self.answers_at:
            return "answer"
        raise self.error

    async def call(self) -> str:
        return await self()


async def calls_of(build, caller: Caller, policies: RetryPolicies = FEW, **more) -> tuple[int, Watch]:
    watch = Watch()
    with pytest.raises(UpstreamError) as raised:
        await build(watch, policies, **more)(caller.call)
    assert raised.value is caller.error
    return caller.calls, watch


@pytest.mark.parametrize("fault", Fault)
async def test_which_classes_are_tried_again(fault: Fault):
    sent, _ = await calls_of(build_sending_policy, Caller(fault))
    asked, _ = await calls_of(build_asking_policy, Caller(fault))
    assert sent == (3 if fault in SENT_AGAIN else 1)
    assert asked == (3 if fault in ASKED_AGAIN else 1)
    assert {Fault.NOT_SENT} == SENT_AGAIN
    assert Fault.REFUSED not in ASKED_AGAIN


async def test_each_target_has_its_own():
    assert (await calls_of(build_sending_policy, Caller(Fault.NOT_SENT, CLOUDSTACK)))[0] == 3
    assert (await calls_of(build_sending_policy, Caller(Fault.NOT_SENT, VOLUME_DAEMON)))[0] == 5


async def test_what_the_client_below_has_tried_is_not_tried_again():
    for build in (build_sending_policy, build_asking_policy):
        assert (await calls_of(build, Caller(Fault.NOT_SENT, spent=True)))[0] == 1


async def test_the_total_is_kept_and_the_pauses_grow_with_jitter():
    calls, watch = await calls_of(build_asking_policy, Caller(Fault.NO_ANSWER), SHORT)
    assert calls == len(watch.pauses) + 1
    assert watch.at - 100 <= 10
    for number, pause in enumerate(watch.pauses):
        longest = min(2.0**number, 4.0)
        assert longest / 2 <= pause <= longest
    pauses = {SHORT.cloudstack.pause_s(3) for _ in range(10)}
    assert len(pauses) > 1


async def test_the_default_outlasts_what_makes_a_target_suspect():
    """Before a run gives up, the circuit has been asked."""
    policy = RetryPolicy()
    least = sum(min(policy.first_pause_s * 2**n, policy.longest_pause_s) / 2 for n in range(policy.attempts - 1))
    assert 10 < least < policy.total_s


async def test_it_comes_back_when_it_is_told_to():
    watch, caller = Watch(), Caller(Fault.NOT_SENT, answers_at=2, retry_after_s=7.5)
    assert await build_sending_policy(watch, FEW)(caller.call) == "answer"
    assert watch.pauses == [7.5]


async def test_a_target_that_wants_more_time_than_there_is_is_not_waited_for():
    calls, watch = await calls_of(build_sending_policy, Caller(Fault.NOT_SENT, retry_after_s=60), SHORT)
    assert (calls, watch.pauses) == (1, [])


async def test_nothing_is_tried_again_once_the_run_is_to_stop():
    assert (await calls_of(build_asking_policy, Caller(Fault.NO_ANSWER), is_stopping=lambda: True))[0] == 1


async def test_a_fault_of_ours_is_not_tried_again():
    async def broken() -> str:
        raise ValueError("ours")

    watch = Watch()
    with pytest.raises(ValueError, match="ours"):
        await build_asking_policy(watch, FEW)(broken)
    assert watch.pauses == []
