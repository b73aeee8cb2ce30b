"""No wait outlasts a person's cancel, and none but a revert's own job lasts for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime

import pytest

from oma.domain.actions import ActionKind
from oma.domain.events import Event, EventType
from oma.domain.issues import CANCELLED
from oma.domain.jobs import Job
from oma.domain.resolving import Resolution
from oma.domain.states import ActionState, JobState
from oma.service.control import cancel_job
from oma.service.issues import Said, resolve_issue
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import FIGURES, Stage, open_stage
from tests.fakes.world import OMA_VM_ID
from tests.unit.workflow.test_giving_up import resolved

pytestmark = pytest.mark.rule("8-undone")
FOR_EVER_S = 10_000_000.0
A_WHILE_S = 40.0


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    figures = replace(FIGURES, revert_window_s=FOR_EVER_S, cancel_patience_s=A_WHILE_S)
    async with open_stage(figures=figures) as opened:
        yield opened


async def one_disk(stage: Stage) -> BrokenVm:
    return await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))


def cancel_on(stage: Stage, job: Job, wanted: EventType, words: str) -> None:
    """As soon as the run has said this; at most once."""
    asked: list[asyncio.Task[Job]] = []

    def look(event: Event) -> None:
        if event.type is wanted and words in event.sentence and not asked:
            asked.append(asyncio.create_task(cancel_job(stage.deps, job.id, "It takes too long.", actor="eva")))

    stage.deps.bus.on_event(look)


async def until(stage: Stage, wanted: EventType, words: str) -> None:
    said = asyncio.Event()
    stage.deps.bus.on_event(lambda event: said.set() if event.type is wanted and words in event.sentence else None)
    await said.wait()


async def kinds(stage: Stage, job: Job) -> set[str]:
    return {str(issue["kind"]) for issue in await stage.open_issues(job.id)}


async def test_a_cancel_ends_the_wait_for_the_window_of_a_revert(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530)
    job = await stage.submit(await one_disk(stage))
    cancel_on(stage, job, EventType.NOTED, "the run waits until")
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    assert CANCELLED in await kinds(stage, job)
    assert stage.count("revertSnapshot") == 1


async def test_a_cancel_ends_the_wait_before_a_disk_goes_home_by_a_word(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=431)
    vm = await one_disk(stage)
    job = await stage.submit(vm)
    await stage.work()
    await resolved(stage, job, Resolution.APPLIED)
    cancel_on(stage, job, EventType.NOTED, "is not attached before")
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    assert await kinds(stage, job) == {CANCELLED}
    assert stage.world.holder_of(vm.volume_id(0)) is None


async def test_a_revert_that_never_ends_can_be_given_up_after_a_cancel(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_STUCK, "revertSnapshot", delay_s=FOR_EVER_S)
    job = await stage.submit(await one_disk(stage))
    cancel_on(stage, job, EventType.ACTION_SENT, "Revert ")
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    assert await kinds(stage, job) == {CANCELLED, ActionKind.REVERT_SNAPSHOT.value}
    (issue,) = [one for one in await stage.open_issues(job.id) if one["kind"] == ActionKind.REVERT_SNAPSHOT.value]
    assert any("RESYNC" in step for step in issue["guidance"])


async def test_a_call_that_ends_in_time_is_followed_to_its_end_under_a_cancel(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_STUCK, "revertSnapshot", delay_s=A_WHILE_S / 4)
    job = await stage.submit(await one_disk(stage))
    cancel_on(stage, job, EventType.ACTION_SENT, "Revert ")
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    (revert,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    assert revert.state is ActionState.EXECUTED
    assert await kinds(stage, job) == {CANCELLED}


async def test_only_a_revert_is_followed_for_ever(stage: Stage) -> None:
    stage.tools = replace(stage.tools, figures=replace(stage.tools.figures, follow_s=A_WHILE_S, busy_wait_s=A_WHILE_S))
    stage.world.add_fault(FaultKind.JOB_STUCK, "deleteSnapshot", delay_s=FOR_EVER_S)
    job = await stage.submit(await one_disk(stage))
    await stage.work()
    parked = await stage.check(job.id)
    assert parked.state is JobState.PARKED
    (delete,) = await stage.actions(job.id, ActionKind.DELETE_SNAPSHOT)
    assert delete.state is ActionState.EXECUTION_FAILED
    assert delete.error is not None
    assert delete.error["unknown"]


async def test_an_operation_of_the_volume_daemon_is_not_followed_for_ever_either(stage: Stage) -> None:
    stage.tools = replace(stage.tools, figures=replace(stage.tools.figures, follow_s=A_WHILE_S, busy_wait_s=A_WHILE_S))
    stage.world.add_fault(FaultKind.JOB_STUCK, "attachVolume", delay_s=FOR_EVER_S)
    vm = await one_disk(stage)
    job = await stage.submit(vm)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    assert ActionKind.ATTACH_VOLUME.value in await kinds(stage, job)
    assert stage.world.holder_of(vm.volume_id(0)) != OMA_VM_ID


async def test_when_a_reverts_job_ended_is_kept_and_the_window_begins_once(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_STUCK, "revertSnapshot", delay_s=3 * A_WHILE_S)
    job = await stage.submit(await one_disk(stage))
    cancel_on(stage, job, EventType.ACTION_SENT, "Revert ")
    await stage.work()
    for issue in await stage.open_issues(job.id):
        word = Resolution.APPLIED if issue["kind"] == CANCELLED else Resolution.RESYNC
        await resolve_issue(stage.deps, issue["id"], Said(word, "It never ends.", "anna"))

    async def waits() -> datetime:
        running = asyncio.create_task(stage.work())
        await until(stage, EventType.NOTED, "is not attached before")
        running.cancel()
        await asyncio.wait({running})
        await stage.break_off(job.id)
        (revert,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
        return datetime.fromisoformat(revert.evidence["resolved"]["job_ended_by"])

    assert await waits() == await waits()
