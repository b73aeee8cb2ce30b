"""Reverts that end without proof: the window, the next attempt, and what hands them to a person."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from database.tables import log_events
from oma.domain.actions import ActionKind
from oma.domain.events import Event, EventType
from oma.domain.states import ActionState, JobState
from oma.domain.world import VmEvent
from oma.workflow.runner import run_job
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import FIGURES, Stage, open_stage

pytestmark = pytest.mark.rule("5-proof")
WINDOW_S = 100.0


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with open_stage(figures=replace(FIGURES, revert_window_s=WINDOW_S)) as opened:
        yield opened


async def one_disk(stage: Stage) -> BrokenVm:
    return await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))


def at_the_wait(stage: Stage, act: object) -> None:
    """Does something as soon as the run says until when it waits."""

    def look(event: Event) -> None:
        if event.type is EventType.NOTED and "waits_until" in event.data:
            act()  # type: ignore[operator]

    stage.deps.bus.on_event(look)


async def test_it_is_made_again_after_the_window_and_then_proven(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, fraction=0.5)
    vm = await one_disk(stage)
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    first, second = stage.world.accepted("revertSnapshot")
    assert second.at - first.at >= WINDOW_S
    (revert,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    assert (revert.state, revert.attempt, revert.request_id) == (ActionState.EXECUTED, 2, second.request_id)
    assert [one["job"] for one in revert.evidence["earlier_attempts"]] == ["failed"]


async def test_the_job_says_until_when_it_waits_and_attaches_nothing_meanwhile(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530)
    seen: list[int] = []
    at_the_wait(stage, lambda: seen.append(stage.count("attachVolume")))
    job = await stage.clean(await one_disk(stage))
    assert seen == [0]
    lines = [row for row in await stage.rows(log_events, job_id=job.id) if "the run waits until" in row["message"]]
    assert len(lines) == 1
    assert "waits_until" in lines[0]["attrs"]


async def test_after_so_many_attempts_a_person_decides(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, times=2)
    job = await stage.clean(await one_disk(stage))
    assert job.state is JobState.PARKED
    assert stage.count("revertSnapshot") == 2
    assert stage.count("attachVolume") == stage.count("deleteSnapshot") == 0
    (issue,) = await stage.open_issues(job.id)
    assert "It was tried 2 times." in issue["title"]


async def test_a_definite_no_is_not_tried_again(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=431)
    job = await stage.clean(await one_disk(stage))
    assert job.state is JobState.PARKED
    assert stage.count("revertSnapshot") == 1


async def test_a_volume_that_was_attached_meanwhile_is_not_reverted_again(stage: Stage) -> None:
    """Also where it is free again by the end of the window: something may have written to it."""
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530)
    vm = await one_disk(stage)

    def come_and_go() -> None:
        log = stage.world.model.world.log_event
        log("VOLUME.ATTACH", "Completed", "attached by hand", level="INFO", resource_id=vm.volume_id(0))

    at_the_wait(stage, come_and_go)
    job = await stage.submit(vm)
    await stage.work()
    parked = await stage.job(job.id)
    assert parked.state is JobState.PARKED
    assert stage.count("revertSnapshot") == 1
    (issue,) = await stage.open_issues(job.id)
    assert "It is not reverted again: it was attached since" in issue["title"]
    (revert,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    assert issue["action_id"] == revert.id


async def test_an_attachment_counts_by_the_servers_clock(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """CloudStack's clock is ten minutes behind ours, and so are the times in its event log."""
    behind = timedelta(minutes=10)
    server_time, events = stage.cloud.find_server_time, stage.cloud.list_volume_events
    submit = stage.cloud.submit_revert

    async def find_server_time() -> datetime:
        return await server_time() - behind

    async def list_volume_events(volume_id: str) -> list[VmEvent]:
        return [replace(one, at=one.at and one.at - behind) for one in await events(volume_id)]

    async def submit_revert(snapshot_id: str, *, request_id: str, expires_at: datetime | None) -> str:
        return await submit(snapshot_id, request_id=request_id, expires_at=expires_at and expires_at + behind)

    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530)
    vm = await one_disk(stage)
    monkeypatch.setattr(stage.cloud, "find_server_time", find_server_time)
    monkeypatch.setattr(stage.cloud, "list_volume_events", list_volume_events)
    monkeypatch.setattr(stage.cloud, "submit_revert", submit_revert)
    log = stage.world.model.world.log_event
    at_the_wait(stage, lambda: log("VOLUME.ATTACH", "Completed", "by hand", level="INFO", resource_id=vm.volume_id(0)))
    job = await stage.submit(vm)
    await stage.work()
    assert (await stage.job(job.id)).state is JobState.PARKED
    assert stage.count("revertSnapshot") == 1


async def test_an_attachment_before_the_revert_was_begun_is_none_since(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530)
    vm = await one_disk(stage)
    stage.world.model.world.log_event(
        "VOLUME.ATTACH", "Completed", "the failover", level="INFO", resource_id=vm.volume_id(0)
    )
    await stage.clock.sleep(2 * stage.tools.figures.late_s)
    assert (await stage.clean(vm)).state is JobState.COMPLETED
    assert stage.count("revertSnapshot") == 2


async def test_where_the_event_log_does_not_tell_a_person_decides(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530)
    stage.cloud.event_resource = False
    job = await stage.clean(await one_disk(stage))
    assert job.state is JobState.PARKED
    assert stage.count("revertSnapshot") == 1
    (issue,) = await stage.open_issues(job.id)
    assert "whether something attached it since can't be told" in issue["title"]


async def test_what_stands_in_the_way_of_the_next_attempt_parks_with_the_revert_named(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530)
    vm = await one_disk(stage)
    at_the_wait(stage, lambda: stage.world.forget_snapshot(vm.snapshot_id(0)))
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    assert stage.count("revertSnapshot") == 1
    titles = " ".join(issue["title"] for issue in await stage.open_issues(job.id))
    assert "no longer lists the snapshot" in titles
    assert "The revert of" in titles


async def test_a_restart_within_the_window_waits_for_what_is_left_of_it(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530)
    job = await stage.submit(await one_disk(stage))
    running = asyncio.create_task(stage.work())
    at_the_wait(stage, running.cancel)
    await asyncio.wait({running})
    await stage.break_off(job.id)
    await run_job(await stage.claim(), stage.tools)
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    first, second = stage.world.accepted("revertSnapshot")
    assert second.at - first.at >= WINDOW_S


async def test_a_stop_within_the_window_is_a_safe_point(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530)
    stop = asyncio.Event()
    at_the_wait(stage, stop.set)
    job = await stage.submit(await one_disk(stage))
    await stage.work(replace(stage.tools, stop=stop))
    assert (await stage.job(job.id)).state is JobState.QUEUED
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
