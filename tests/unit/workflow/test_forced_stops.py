"""Stops that come to no end, and forced ones: what counts as seen `Stopped`, also where an attempt's fate was unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from database.tables import oma_leaks
from oma.domain.actions import ActionKind
from oma.domain.jobs import Job
from oma.domain.states import ActionState, JobState
from oma.domain.words import Words
from oma.service.control import resume_job
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import Stage

pytestmark = pytest.mark.rule("8-force", "4-stopped")

REASON = "nobody needs the VM any more"
RESUME = Words(force=True, resume=True, reason=REASON)


async def parked(stage: Stage, vm: BrokenVm) -> Job:
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    return job


async def go_on(stage: Stage, job: Job, words: Words = RESUME) -> Job:
    await resume_job(stage.deps, job.id, words, actor="operator")
    await stage.work()
    return await stage.check(job.id)


def first_revert_at(stage: Stage) -> float:
    return min(one.at for one in stage.world.accepted("revertSnapshot"))


@pytest.fixture
def impatient(stage: Stage) -> Stage:
    """A stop is followed for a minute only."""
    stage.tools = replace(stage.tools, figures=replace(stage.tools.figures, stop_wait_s=60.0))
    return stage


async def test_a_stop_whose_job_never_ends_parks_with_an_issue_that_says_so(impatient: Stage) -> None:
    vm = await impatient.add()
    impatient.world.add_fault(FaultKind.JOB_STUCK, "stopVirtualMachine", times=None)
    job = await parked(impatient, vm)
    (issue,) = await impatient.open_issues(job.id)
    (stop,) = await impatient.actions(job.id, ActionKind.STOP_VM)
    assert f"{stop.remote_id} has not ended within 60 s" in issue["title"]
    assert "--resume --force" in " ".join(issue["guidance"])
    assert impatient.count("detachVolume") == 0


async def test_a_stop_whose_job_never_ends_is_forced_on_a_persons_word(impatient: Stage) -> None:
    vm = await impatient.add()
    impatient.world.add_fault(FaultKind.JOB_LATE, "stopVirtualMachine", times=1, delay_s=90_000.0)
    job = await parked(impatient, vm)
    impatient.world.add_fault(FaultKind.JOB_FAIL, "stopVirtualMachine", times=1)
    impatient.tools = replace(impatient.tools, figures=replace(impatient.tools.figures, stop_wait_s=900.0))
    job = await go_on(impatient, job)
    assert job.state is JobState.COMPLETED
    assert [bool(one.params.get("forced")) for one in impatient.world.accepted("stopVirtualMachine")] == [
        False,
        False,
        True,
    ]
    assert [row["kind"] for row in await impatient.rows(oma_leaks)] == ["forced_stop"]


async def test_a_forced_stop_whose_answer_was_lost_is_remembered_by_the_next_attempt(stage: Stage) -> None:
    """It may have stopped the VM after all: then `Stopped` is no proof before it was seen twice, the host Up."""
    vm = await stage.add()
    stage.world.add_fault(FaultKind.JOB_FAIL, "stopVirtualMachine", times=2)
    job = await parked(stage, vm)
    lost = _lose_the_forced_stop(stage)
    job = await go_on(stage, job)
    assert (job.state, lost) == (JobState.PARKED, [True])
    stage.world.change_vm(vm.test_vm_id, state="Stopped")
    stage.cloud.weather.asked.clear()
    began = stage.clock.unix()

    job = await go_on(stage, job)

    assert job.state is JobState.COMPLETED
    assert first_revert_at(stage) - began >= stage.tools.figures.stopped_again_s
    assert "find_host_state" in stage.cloud.weather.asked
    assert [row["kind"] for row in await stage.rows(oma_leaks)] == ["forced_stop"]
    (stop,) = await stage.actions(job.id, ActionKind.STOP_VM)
    assert stop.state is ActionState.EXECUTED


async def test_a_vm_that_is_gone_after_a_forced_stop_was_not_seen_stopped(stage: Stage) -> None:
    vm = await stage.add()
    stage.world.add_fault(FaultKind.JOB_FAIL, "stopVirtualMachine", times=2)
    job = await parked(stage, vm)
    asleep = stage.clock.sleep

    async def destroy_meanwhile(seconds: float) -> None:
        if seconds == stage.tools.figures.stopped_again_s:
            stage.world.change_vm(vm.test_vm_id, state="Destroyed")
        await asleep(seconds)

    stage.clock.sleep = destroy_meanwhile  # type: ignore[method-assign]
    job = await go_on(stage, job)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "Destroyed, not Stopped" in job.error["detail"]
    assert job.error["replica"] == "unknown"
    assert stage.count("revertSnapshot") == 0


def _lose_the_forced_stop(stage: Stage) -> list[bool]:
    """The forced call never arrives, and nobody says so."""
    submit = stage.cloud.submit_stop_vm
    lost: list[bool] = []

    async def submit_stop_vm(vm_id: str, *, forced: bool, **more: object) -> str:
        if forced and not lost:
            lost.append(True)
            stage.cloud.weather.lose_requests.append("stopVirtualMachine")
        return await submit(vm_id, forced=forced, **more)  # type: ignore[arg-type]

    stage.cloud.submit_stop_vm = submit_stop_vm  # type: ignore[method-assign]
    return lost
