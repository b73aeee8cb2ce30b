"""No clock shortens the window after a revert: neither ours, set forward while it lasts, nor one set forward before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from oma.domain.events import Event, EventType
from oma.domain.resolving import Resolution
from oma.domain.states import JobState
from oma.service.issues import Said, resolve_issue
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import FIGURES, Stage, open_stage
from tests.fakes.time_and_ids import FastClock

pytestmark = pytest.mark.rule("5-proof")
WINDOW_S = 200.0
REVERT = "revertSnapshot"


class SetClock:
    """Our own clock, which somebody sets; CloudStack has its own."""

    def __init__(self, clock: FastClock) -> None:
        self._clock = clock
        self.ahead = timedelta()

    def now(self) -> datetime:
        return self._clock.now() + self.ahead

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with open_stage(figures=replace(FIGURES, revert_window_s=WINDOW_S)) as opened:
        yield opened


def with_own_clock(stage: Stage) -> SetClock:
    clock = SetClock(stage.clock)
    stage.tools = replace(stage.tools, clock=clock)
    return clock


def set_forward_at_the_wait(stage: Stage, clock: SetClock) -> None:
    def look(event: Event) -> None:
        if event.type is EventType.NOTED and "waits_until" in event.data:
            clock.ahead = timedelta(days=1)

    stage.deps.bus.on_event(look)


def apart_s(stage: Stage) -> float:
    first, second = stage.world.accepted(REVERT)
    return second.at - first.at


async def test_our_clock_is_set_forward_while_the_run_waits(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, REVERT, errorcode=530)
    set_forward_at_the_wait(stage, with_own_clock(stage))
    await stage.submit(await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped")))
    await stage.work()
    assert apart_s(stage) >= WINDOW_S


async def test_our_clock_was_set_forward_while_no_daemon_ran(stage: Stage) -> None:
    clock = with_own_clock(stage)
    stage.world.add_fault(FaultKind.JOB_FAIL, REVERT, errorcode=530)
    job = await stage.submit(await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped")))
    running = asyncio.create_task(stage.work())

    def die(event: Event) -> None:
        if event.type is EventType.NOTED and "waits_until" in event.data:
            running.cancel()

    stage.deps.bus.on_event(die)
    await asyncio.wait({running})
    await stage.break_off(job.id)
    clock.ahead = timedelta(days=1)
    await stage.work()
    assert stage.count(REVERT) == 2
    assert apart_s(stage) >= WINDOW_S - stage.tools.figures.late_s


async def test_our_clock_was_set_back_while_the_revert_ran_and_put_right_while_no_daemon_did(stage: Stage) -> None:
    clock = with_own_clock(stage)
    stage.world.add_fault(FaultKind.JOB_FAIL, REVERT, errorcode=530)
    job = await stage.submit(await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped")))
    running = asyncio.create_task(stage.work())

    def follow(event: Event) -> None:
        if event.type is EventType.ACTION_SENT and stage.count(REVERT):
            clock.ahead = timedelta(hours=-1)
        if event.type is EventType.NOTED and "waits_until" in event.data:
            running.cancel()

    stage.deps.bus.on_event(follow)
    await asyncio.wait({running})
    await stage.break_off(job.id)
    clock.ahead = timedelta(0)
    await stage.work()
    assert stage.count(REVERT) == 2
    assert apart_s(stage) >= WINDOW_S - stage.tools.figures.late_s


async def test_a_persons_word_waits_it_out_as_well(stage: Stage) -> None:
    stage.tools = replace(stage.tools, figures=replace(stage.tools.figures, revert_attempts=1))
    stage.world.add_fault(FaultKind.JOB_FAIL, REVERT, errorcode=530)
    job = await stage.clean(await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped")))
    assert job.state is JobState.PARKED
    (issue,) = await stage.open_issues(job.id)
    await resolve_issue(stage.deps, issue["id"], Said(Resolution.ROLLED_BACK, "It failed.", "anna"))
    with_own_clock(stage).ahead = timedelta(days=1)
    await stage.work()
    assert apart_s(stage) >= WINDOW_S - stage.tools.figures.late_s
