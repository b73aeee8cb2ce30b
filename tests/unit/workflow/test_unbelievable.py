"""A journal that can't be true parks its run before anything is asked, and what a run really writes is believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from oma.domain.actions import Action, ActionKind, Target
from oma.domain.issues import UNBELIEVABLE
from oma.domain.jobs import Job, Step
from oma.domain.nonsense import FUTURE, find_nonsense
from oma.domain.resolving import Resolution
from oma.domain.states import ActionState, JobState, Phase, StepStatus
from oma.service.issues import Said, resolve_issue
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage

Journal = tuple[Job, list[Step], list[Action]]


async def a_run_that_died(stage: Stage, command: str = "attachVolume") -> Job:
    """In the middle of it: some actions are done, one is open."""
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await stage.submit(vm)
    stage.volumes.weather.gates[command] = asyncio.Event()
    running = asyncio.create_task(stage.work())
    await stage.volumes.weather.until_asked(command)
    running.cancel()
    await asyncio.wait({running})
    stage.volumes.weather.gates.clear()
    await stage.break_off(job.id)
    return job


async def journal(stage: Stage, job: Job) -> Journal:
    return (
        await stage.job(job.id),
        list(await stage.deps.jobs.list_steps(job.id)),
        list(await stage.deps.jobs.list_actions(job.id)),
    )


def changed(actions: list[Action], kind: ActionKind, **fields: object) -> list[Action]:
    return [replace(one, **fields) if one.kind is kind else one for one in actions]  # type: ignore[arg-type]


CHANGES: dict[str, tuple[Callable[[Journal], Journal], str]] = {
    "a target without its volume": (
        lambda old: (old[0], old[1], changed(old[2], ActionKind.ATTACH_VOLUME, target=Target(vm_id="v"))),
        "names no volume",
    ),
    "no attempt": (
        lambda old: (old[0], old[1], changed(old[2], ActionKind.ATTACH_VOLUME, attempt=0)),
        "at attempt 0",
    ),
    "begun at no time": (
        lambda old: (old[0], old[1], changed(old[2], ActionKind.ATTACH_VOLUME, intent_at=None)),
        "begun at no time",
    ),
    "a lost step": (
        lambda old: (old[0], [one for one in old[1] if one.phase is not Phase.SNAPSHOTS], old[2]),
        "cleanup-snapshots before it is missing",
    ),
    "a step that runs behind the last": (
        lambda old: (
            old[0],
            [replace(one, status=StepStatus.RUNNING) if one.phase is Phase.DETACH else one for one in old[1]],
            old[2],
        ),
        "detach-attached-volumes before it is running",
    ),
    "lost rows of a completed step": (
        lambda old: (old[0], old[1], [one for one in old[2] if one.kind is not ActionKind.REVERT_SNAPSHOT]),
        "no row tells of",
    ),
    "a revert before the point of no return": (
        lambda old: (replace(old[0], reverted=False), old[1], old[2]),
        "before its point of no return",
    ),
    "an attach over an open revert": (
        lambda old: (old[0], old[1], changed(old[2], ActionKind.REVERT_SNAPSHOT, state=ActionState.STARTED)),
        "attached a volume whose revert",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_what_can_not_be_true_is_found(stage: Stage, change: str) -> None:
    job = await a_run_that_died(stage)
    true = await journal(stage, job)
    assert find_nonsense(*true, stage.clock.now()) is None
    meddle, words = CHANGES[change]
    assert words in str(find_nonsense(*meddle(true), stage.clock.now()))


async def test_a_time_that_is_yet_to_come_tells_of_a_clock_that_was_set_back(stage: Stage) -> None:
    job = await a_run_that_died(stage)
    true = await journal(stage, job)
    hour_back = stage.clock.now() - timedelta(hours=1)
    assert "a clock was set back" in str(find_nonsense(*true, hour_back))
    latest = max(one.intent_at for one in true[2] if one.intent_at)
    assert find_nonsense(*true, latest - FUTURE) is None, "two machines' clocks differ a little"


async def test_its_run_parks_with_an_issue_and_the_others_are_served(stage: Stage) -> None:
    job = await a_run_that_died(stage)
    await stage.sql(f"DELETE FROM job_steps WHERE job_id = '{job.id}' AND seq = 3")
    other = await stage.add(BrokenVm("pgtest2", disks=[Disk()], test_vm_state="Stopped"))
    orders = len(stage.world.orders)
    sentence = await stage.work()
    assert "can't be true" in sentence
    assert len(stage.world.orders) == orders, "nothing was sent"
    parked = await stage.job(job.id)
    assert parked.state is JobState.PARKED
    kinds = {str(issue["kind"]) for issue in await stage.open_issues(job.id)}
    assert UNBELIEVABLE in kinds
    second = await stage.submit(other)
    await stage.work()
    assert (await stage.job(second.id)).state is JobState.COMPLETED


async def test_a_person_who_has_put_it_right_lets_it_go_on(stage: Stage) -> None:
    job = await a_run_that_died(stage)
    row = (await stage.deps.jobs.list_steps(job.id))[2]
    await stage.sql(f"UPDATE job_steps SET status = 'running' WHERE job_id = '{job.id}' AND seq = 3")
    await stage.work()
    assert row.phase is Phase.SNAPSHOTS
    await stage.sql(f"UPDATE job_steps SET status = 'completed' WHERE job_id = '{job.id}' AND seq = 3")
    for issue in await stage.open_issues(job.id):
        await resolve_issue(stage.deps, issue["id"], Said(Resolution.ROLLED_BACK, "Put right.", "anna"))
    await stage.work()
    ended = await stage.job(job.id)
    assert ended.state is JobState.COMPLETED, ended.error
