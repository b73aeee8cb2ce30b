"""A job that outlives every daemon that works on it parks, and blocks nobody."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from oma.domain.actions import ActionKind
from oma.domain.states import JobState
from oma.workflow.runner import run_job
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage

pytestmark = pytest.mark.rule("6-own-ids")
BOUND = 2


def bounded(stage: Stage) -> None:
    stage.tools = replace(stage.tools, figures=replace(stage.tools.figures, job_recoveries=BOUND))


async def die_at(stage: Stage, job_id: str, command: str) -> None:
    """A daemon takes the job, and dies at this call."""
    stage.cloud.weather.gates[command] = asyncio.Event()
    stage.cloud.weather.asked.clear()
    running = asyncio.create_task(stage.work())
    await stage.cloud.weather.until_asked(command)
    running.cancel()
    await asyncio.wait({running})
    stage.cloud.weather.gates.clear()
    await stage.break_off(job_id)


async def test_it_parks_after_so_many_recoveries_without_a_step_forward(stage: Stage) -> None:
    bounded(stage)
    job = await stage.submit(await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped")))
    for _ in range(BOUND + 1):
        await die_at(stage, job.id, "revertSnapshot")
    await stage.work()
    parked = await stage.check(job.id)
    assert parked.state is JobState.PARKED
    assert parked.error is not None
    assert f"was taken over {BOUND + 1} times in a row" in parked.error["detail"]
    (revert,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    issues = await stage.open_issues(job.id)
    assert {issue["action_id"] for issue in issues} == {None, revert.id}
    assert stage.count("revertSnapshot") == 0


async def test_a_job_that_gets_further_each_time_is_gone_on_with(stage: Stage) -> None:
    bounded(stage)
    job = await stage.submit(await stage.add(BrokenVm(disks=[Disk()])))
    for command in ("stopVirtualMachine", "revertSnapshot", "deleteSnapshot", "destroyVirtualMachine"):
        await die_at(stage, job.id, command)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED


async def test_a_job_that_was_given_back_counts_as_no_recovery(stage: Stage) -> None:
    bounded(stage)
    job = await stage.submit(await stage.add(BrokenVm(disks=[Disk()])))
    for _ in range(BOUND + 2):
        stop = asyncio.Event()
        stop.set()
        claimed = await stage.claim()
        assert claimed.recoveries == 0
        await run_job(claimed, replace(stage.tools, stop=stop))
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED


async def test_a_poisoned_job_leaves_the_others_their_turn(stage: Stage) -> None:
    bounded(stage)
    poison = await stage.submit(await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped")))
    for _ in range(BOUND + 1):
        await die_at(stage, poison.id, "revertSnapshot")
    other = await stage.submit(await stage.add(BrokenVm(name="other", disks=[Disk()], test_vm_state="Stopped")))
    await stage.work()
    await stage.work()
    assert (await stage.job(poison.id)).state is JobState.PARKED
    assert (await stage.check(other.id)).state is JobState.COMPLETED
