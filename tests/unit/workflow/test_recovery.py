"""Calls that may have been sent, on the stage: sent again as themselves, observed where no id tells, never twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from database.tables import log_events
from oma.domain.actions import ActionKind
from oma.domain.jobs import Job
from oma.domain.states import ActionState, JobState
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import FIGURES, Stage, open_stage

COMMANDS = {
    "stopVirtualMachine": ActionKind.STOP_VM,
    "revertSnapshot": ActionKind.REVERT_SNAPSHOT,
    "deleteSnapshot": ActionKind.DELETE_SNAPSHOT,
    "destroyVirtualMachine": ActionKind.DESTROY_VM,
}
pytestmark = pytest.mark.rule("6-own-ids")


@pytest.fixture
async def old() -> AsyncIterator[Stage]:
    """A CloudStack that gives jobs ids of its own."""
    async with open_stage(figures=replace(FIGURES, expires_s=150.0)) as stage:
        stage.cloud.honours_ids = False
        yield stage


async def killed_before(stage: Stage, vm: BrokenVm, command: str) -> Job:
    """The process dies with the intent journaled and the call not sent."""
    job = await stage.submit(vm)
    stage.cloud.weather.gates[command] = asyncio.Event()
    running = asyncio.create_task(stage.work())
    await stage.cloud.weather.until_asked(command)
    running.cancel()
    await asyncio.wait({running})
    stage.cloud.weather.gates.clear()
    await stage.break_off(job.id)
    return job


async def said(stage: Stage, job: Job) -> str:
    return "\n".join(row["message"] for row in await stage.rows(log_events, job_id=job.id))


@pytest.mark.parametrize("command", COMMANDS)
async def test_an_intent_that_never_arrived_is_sent_under_its_own_id(stage: Stage, command: str) -> None:
    job = await killed_before(stage, await stage.add(BrokenVm(disks=[Disk()])), command)
    (begun,) = await stage.actions(job.id, COMMANDS[command])
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    (action,) = await stage.actions(job.id, COMMANDS[command])
    assert (action.id, action.attempt, action.state) == (begun.id, 1, ActionState.EXECUTED)
    assert action.expires_at is not None
    assert begun.expires_at is not None
    assert action.expires_at > begun.expires_at
    assert [one.request_id for one in stage.world.accepted(command)] == [begun.id]
    assert "sent again under the same id" in await said(stage, job)


async def test_the_world_is_looked_at_again_before_an_unsent_revert_is_sent(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await killed_before(stage, vm, "revertSnapshot")
    stage.world.change_volume(vm.volume_id(0), vm_id=stage.world.oma_vm_id)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    assert stage.count("revertSnapshot") == 0


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_lost_request_is_sent_again_by_the_same_process(stage: Stage, command: str) -> None:
    stage.cloud.weather.lose_requests += [command] * 2
    job = await stage.clean(await stage.add(BrokenVm(disks=[Disk()])))
    assert job.state is JobState.COMPLETED, job.error
    assert stage.cloud.weather.asked.count(command) == 3
    assert stage.count(command) == 1


async def test_an_id_that_cloudstack_may_have_forgotten_proves_nothing(stage: Stage) -> None:
    """The snapshot is gone, so its deletion had arrived, however long ago."""
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await killed_before(stage, vm, "deleteSnapshot")
    await stage.sql(
        "UPDATE oma_actions SET intent_at = '2020-01-01 00:00:00.000000', expires_at = '2020-01-01 00:01:00.000000' "
        "WHERE kind = 'delete_snapshot'"
    )
    stage.world.forget_snapshot(vm.snapshot_id(0))
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert stage.count("deleteSnapshot") == 0
    assert "judged by observation alone" in await said(stage, job)


@pytest.mark.parametrize("command", ["stopVirtualMachine", "deleteSnapshot", "destroyVirtualMachine"])
async def test_without_ids_of_ours_a_lost_answer_is_observed_and_not_repeated(old: Stage, command: str) -> None:
    old.cloud.weather.lose_answers.append(command)
    job = await old.clean(await old.add(BrokenVm(disks=[Disk()])))
    assert job.state is JobState.COMPLETED, job.error
    assert old.count(command) == 1
    (action,) = await old.actions(job.id, COMMANDS[command])
    assert action.evidence["job"] == "untraceable"
    assert "judged by observation alone" in await said(old, job)


@pytest.mark.parametrize("command", ["stopVirtualMachine", "deleteSnapshot", "destroyVirtualMachine"])
async def test_without_ids_of_ours_a_lost_request_is_sent_again_when_it_can_no_longer_arrive(
    old: Stage, command: str
) -> None:
    old.cloud.weather.lose_requests.append(command)
    job = await old.clean(await old.add(BrokenVm(disks=[Disk()])))
    assert job.state is JobState.COMPLETED, job.error
    assert old.count(command) == 1
    assert "it may arrive until" in await said(old, job)


async def test_without_ids_of_ours_a_lost_revert_is_made_again_after_the_window(old: Stage) -> None:
    """Nothing that is seen proves a revert, so that one whose answer was lost is as one that failed."""
    old.cloud.weather.lose_answers.append("revertSnapshot")
    vm = await old.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await old.submit(vm)
    await old.work()
    ended = await old.job(job.id)
    assert ended.state is JobState.COMPLETED, ended.error
    (revert,) = await old.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    assert (revert.attempt, old.count("revertSnapshot")) == (2, 2)
    assert revert.evidence["earlier_attempts"][0]["job"] == "untraceable"


async def test_while_nobody_answers_the_run_parks_with_the_action_named(stage: Stage) -> None:
    job = await killed_before(
        stage, await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped")), "revertSnapshot"
    )
    stage.cloud.weather.silent_for = {"query_job"}
    await stage.work()
    parked = await stage.check(job.id)
    assert parked.state is JobState.PARKED
    assert parked.error is not None
    assert "before the restart can't be told: nobody answers" in parked.error["detail"]
