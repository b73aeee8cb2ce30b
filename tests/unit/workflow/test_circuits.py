"""The circuit of a target: what makes it suspect, what opens it, what closes it, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from oma.domain.actions import Upstream
from oma.domain.circuit import CLOUDSTACK, CircuitRules, CircuitState
from oma.ports import Fault, UpstreamError
from oma.workflow.circuits import Breaker, Breakers, Guarded
from tests.fakes.time_and_ids import FastClock

RULES = CircuitRules(silences=3, pause_min_s=1, pause_max_s=4)


class Target:
    """A port of which one call and the trial can be told how to end."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.trial: Fault | type[Exception] | None = None
        self.retry_after_s: float | None = None
        self.code: str | None = None
        self.calls = self.trials = 0
        self.gate: asyncio.Event | None = None
        self.tried = asyncio.Event()

    async def list_volumes(self, one: str) -> str:
        self.calls += 1
        self._end(self.fault)
        return one

    async def check(self) -> str:
        self.trials += 1
        self.tried.set()
        if self.gate is not None:
            await self.gate.wait()
        self._end(self.trial)
        return "It answers."

    def _end(self, fault: Fault | type[Exception] | None) -> None:
        if isinstance(fault, type):
            raise fault("strange")
        if fault is not None:
            upstream = Upstream(CLOUDSTACK, self.code or fault.value, "said so")
            raise UpstreamError(fault, upstream, retry_after_s=self.retry_after_s)


class Bench:
    def __init__(self) -> None:
        self.target, self.clock, self.suspect = Target(), FastClock(), asyncio.Event()
        self.breaker = Breaker(CLOUDSTACK, self.target.check, self.clock, RULES, trial_s=300, suspect=self.suspect)
        self.port = Guarded(self.target, self.breaker)
        self.told: list[bool] = []
        self.breaker.on_change(lambda: self.told.append(self.breaker.circuit.is_away))

    @property
    def state(self) -> CircuitState:
        return self.breaker.circuit.state

    async def call(self, times: int = 1) -> None:
        for _ in range(times):
            with pytest.raises(UpstreamError):
                await self.port.list_volumes("a")

    async def go_away(self) -> None:
        self.target.fault = self.target.trial = Fault.NOT_SENT
        await self.call(RULES.silences)
        await self.breaker.look()


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("fault", [Fault.NOT_SENT, Fault.NO_ANSWER, Fault.BROKEN_ANSWER])
async def test_silences_in_a_row_make_suspect_and_a_silent_trial_opens(bench: Bench, fault: Fault):
    bench.target.fault = bench.target.trial = fault
    await bench.call(2)
    assert (bench.suspect.is_set(), await bench.breaker.look(), bench.state) == (False, None, CircuitState.CLOSED)
    await bench.call()
    assert bench.suspect.is_set()
    said = await bench.breaker.look()
    assert bench.state is CircuitState.OPEN
    assert said is not None
    assert said.startswith("CloudStack has not answered since ")
    assert "said so" in said
    assert bench.told == [True]


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.FAILED])
async def test_a_no_and_an_error_are_answers(bench: Bench, fault: Fault):
    bench.target.fault = fault
    await bench.call(10)
    assert await bench.breaker.look() is None
    assert (bench.state, bench.target.trials) == (CircuitState.CLOSED, 0)


async def test_calls_whose_own_time_had_passed_tell_nothing(bench: Bench):
    bench.target.fault, bench.target.code = Fault.NOT_SENT, "expired"
    await bench.call(RULES.silences)
    assert bench.state is CircuitState.CLOSED
    assert not bench.suspect.is_set()


async def test_an_answer_in_between_makes_the_silences_count_anew(bench: Bench):
    bench.target.fault = bench.target.trial = Fault.NO_ANSWER
    await bench.call(2)
    bench.target.fault = None
    assert await bench.port.list_volumes("b") == "b"
    bench.target.fault = Fault.NO_ANSWER
    await bench.call(2)
    assert await bench.breaker.look() is None
    assert bench.target.trials == 0


async def test_a_command_that_hangs_opens_nothing_while_the_target_answers(bench: Bench):
    bench.target.fault = Fault.NO_ANSWER
    await bench.call(10)
    assert await bench.breaker.look() is None
    assert (bench.state, bench.target.trials, bench.told) == (CircuitState.CLOSED, 1, [])
    assert await bench.breaker.find_outage() is None


async def test_a_refusal_answers_a_trial_and_an_error_does_not(bench: Bench):
    bench.target.trial = Fault.REFUSED
    assert await bench.breaker.find_outage() is None
    bench.target.trial = Fault.FAILED
    assert await bench.breaker.find_outage() is not None


async def test_while_it_is_away_no_call_is_made_but_each_asker_may_try_it(bench: Bench):
    await bench.go_away()
    before = bench.target.calls
    with pytest.raises(UpstreamError) as raised:
        await bench.port.list_volumes("a")
    assert (raised.value.fault, raised.value.upstream.code) == (Fault.NOT_SENT, "circuit_open")
    assert bench.target.calls == before
    bench.target.fault = bench.target.trial = None
    assert await bench.port.list_volumes("c") == "c"
    assert (bench.state, bench.told) == (CircuitState.CLOSED, [True, False])


async def test_many_who_ask_share_one_trial_which_is_the_half_open_state(bench: Bench):
    await bench.go_away()
    before, bench.target.gate = bench.target.trials, asyncio.Event()
    bench.target.tried.clear()
    asking = [asyncio.ensure_future(bench.port.list_volumes(str(one))) for one in range(5)]
    await bench.target.tried.wait()
    assert bench.state is CircuitState.HALF_OPEN
    bench.target.gate.set()
    ends = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(one, UpstreamError) for one in ends)
    assert (bench.target.trials, bench.state) == (before + 1, CircuitState.OPEN)


async def test_whoever_gives_up_waiting_leaves_the_trial_to_the_others(bench: Bench):
    bench.target.gate = asyncio.Event()
    first, second = (asyncio.create_task(bench.breaker.find_outage()) for _ in range(2))
    await bench.target.tried.wait()
    first.cancel()
    bench.target.gate.set()
    assert await second is None
    assert bench.target.trials == 1


async def test_trials_come_by_themselves_ever_more_seldom_until_one_is_answered(bench: Bench):
    await bench.go_away()
    since = bench.breaker.circuit.outage
    pauses = []
    for _ in range(4):
        due = bench.breaker.circuit.next_trial_at
        assert due is not None
        pauses.append(round(due - bench.clock.monotonic()))
        assert bench.breaker.circuit.wants_trial(due)
        await bench.breaker.find_outage()
    assert pauses == [1, 2, 4, 4]
    assert since is not None
    assert bench.breaker.circuit.outage is not None
    assert bench.breaker.circuit.outage.since == since.since
    bench.target.trial = None
    await bench.clock.sleep(5)
    assert await bench.breaker.look() == "CloudStack answers again; the runs go on."
    assert await bench.breaker.look() is None


async def test_a_target_that_says_when_is_left_alone_until_then(bench: Bench):
    bench.target.retry_after_s = 200
    await bench.go_away()
    outage = bench.breaker.circuit.outage
    assert outage is not None
    assert outage.sentence.startswith("CloudStack asks to be left alone until ")
    before = bench.target.trials
    bench.target.trial = None
    await bench.call(3)
    assert await bench.breaker.find_outage() is not None
    await bench.breaker.look()
    assert (bench.target.trials, bench.state) == (before, CircuitState.OPEN)
    await bench.clock.sleep(201)
    await bench.breaker.look()
    assert (bench.target.trials, bench.state) == (before + 1, CircuitState.CLOSED)


async def test_an_answer_to_a_call_of_before_does_not_close_it(bench: Bench):
    arrived = asyncio.Event()

    async def late() -> str:
        await arrived.wait()
        return "late"

    waiting = asyncio.create_task(bench.breaker.pass_on(late))
    await asyncio.sleep(0)
    await bench.go_away()
    arrived.set()
    assert await waiting == "late"
    assert bench.state is CircuitState.OPEN


async def test_a_trial_is_bounded(bench: Bench):
    bench.target.gate = asyncio.Event()
    breaker = Breaker(CLOUDSTACK, bench.target.check, bench.clock, RULES, trial_s=0.01)
    outage = await breaker.find_outage()
    assert outage is not None
    assert outage.reason == "no answer within 0.01 s"


async def test_the_check_of_a_guarded_port_is_its_trial(bench: Bench):
    await bench.go_away()
    with pytest.raises(UpstreamError):
        await bench.port.check()
    bench.target.trial = None
    assert await bench.port.check() == "It answers."
    assert bench.state is CircuitState.CLOSED


async def test_all_targets_together(bench: Bench):
    breakers = Breakers([bench.breaker])
    changes: list[Callable[[], None]] = []
    breakers.on_change(lambda: changes.append(lambda: None))
    assert (breakers.outages, await breakers.find_outage("Volume Daemon")) == ((), None)
    await bench.go_away()
    assert [outage.target for outage in breakers.outages] == [CLOUDSTACK]
    assert breakers.states == {CLOUDSTACK: CircuitState.OPEN}
    assert await breakers.find_outage(CLOUDSTACK) is not None
    assert len(changes) == 1
    bench.target.gate = asyncio.Event()
    bench.target.retry_after_s = None
    trying = asyncio.create_task(breakers.find_outage(CLOUDSTACK))
    await asyncio.sleep(0)
    await breakers.aclose()
    with pytest.raises(asyncio.CancelledError):
        await trying


@pytest.mark.parametrize("retry_after_s", [86_400, 1e15, 1e300])
async def test_nobody_is_left_alone_for_a_day(bench: Bench, retry_after_s: float):
    bench.target.retry_after_s = retry_after_s
    await bench.go_away()
    bench.target.trial = None
    await bench.clock.sleep(301)
    await bench.breaker.look()
    assert bench.state is CircuitState.CLOSED


async def test_a_wall_clock_that_is_set_back_keeps_nobody_waiting(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    await bench.go_away()
    earlier = bench.clock.now() - timedelta(hours=1)
    monkeypatch.setattr(bench.clock, "now", lambda: earlier)
    bench.target.trial = None
    await bench.clock.sleep(2)
    await bench.breaker.look()
    assert bench.state is CircuitState.CLOSED


@pytest.mark.parametrize("error", [KeyError, OverflowError])
async def test_a_trial_that_raises_anything_else_is_a_broken_answer(bench: Bench, error: type[Exception]):
    await bench.go_away()
    bench.target.trial = error
    await bench.clock.sleep(5)
    assert "makes no sense" in str(await bench.breaker.look())
    bench.target.trial = None
    await bench.clock.sleep(5)
    await bench.breaker.look()
    assert (bench.state, bench.told) == (CircuitState.CLOSED, [True, False])


async def test_somebody_who_only_wants_to_know_opens_nothing_by_one_lost_answer(bench: Bench):
    bench.target.trial = Fault.NO_ANSWER
    with pytest.raises(UpstreamError):
        await bench.port.check()
    await bench.breaker.look()
    assert (bench.state, bench.told) == (CircuitState.CLOSED, [])
    for _ in range(RULES.silences - 1):
        with pytest.raises(UpstreamError):
            await bench.port.check()
    await bench.breaker.look()
    assert (bench.state, bench.told) == (CircuitState.OPEN, [True])


async def test_what_somebody_asked_who_lost_his_patience_counts_all_the_same(bench: Bench):
    bench.target.gate, bench.target.trial = asyncio.Event(), Fault.NO_ANSWER
    asking = asyncio.create_task(bench.port.check())
    await bench.target.tried.wait()
    asking.cancel()
    bench.target.gate.set()
    with pytest.raises(UpstreamError):
        await bench.port.check()
    assert (bench.target.trials, bench.breaker.circuit.silences) == (1, 1)
