"""The watcher on the stage: it opens what nobody else would see, starts nothing, and closes its issues itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from database.tables import oma_issues
from oma.domain.controls import Scope
from oma.domain.issues import FAILOVER_STUCK, JOB_STUCK, MOOT
from oma.domain.states import JobState
from oma.domain.world import CloudVolume
from oma.service.pausing import ControlRequest, pause
from oma.service.watching import Patience, Watcher
from oma.store import SqlSupervision
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import Stage


@dataclass
class Watching:
    stage: Stage
    watcher: Watcher

    async def kinds(self, state: str = "open") -> list[str]:
        return sorted(str(row["kind"]) for row in await self.stage.rows(oma_issues, state=state))


@pytest.fixture
def watching(stage: Stage) -> Watching:
    watch = SqlSupervision(stage.door, stage.deps.bus.publish)
    return Watching(stage, Watcher(stage.deps, watch, Patience(failover_s=1800.0, job_s=3600.0)))


async def test_a_dead_failover_gets_one_issue_that_recommends_the_clean_up(watching: Watching) -> None:
    vm = await watching.stage.add()

    assert await watching.watcher.run_once() == "Stuck: 1 issues opened, 0 closed."
    assert await watching.watcher.run_once() is None

    (row,) = await watching.stage.rows(oma_issues)
    assert (row["kind"], row["context_id"], row["job_id"], row["severity"]) == (
        FAILOVER_STUCK,
        vm.context_id,
        None,
        "standard",
    )
    assert "makes no progress: dead since" in row["title"]
    named = f"{vm.name} --context-id {vm.context_id}"
    assert row["guidance"] == [
        f"1. See what a clean-up would do: oma cleanup {named} --dry-run",
        f"2. Clean up; this issue closes itself: oma cleanup {named}",
    ]
    assert row["evidence"]["status"] == "pending"
    assert watching.stage.world.orders == [], "the watcher starts nothing"
    assert await watching.stage.status(vm) == vm.status


async def test_its_issue_keeps_no_run_away_and_closes_itself(watching: Watching) -> None:
    vm = await watching.stage.add()
    await watching.watcher.run_once()

    job = await watching.stage.clean(vm)
    assert job.state is JobState.COMPLETED
    assert await watching.watcher.run_once() == "Stuck: 0 issues opened, 1 closed."
    (row,) = await watching.stage.rows(oma_issues)
    assert (row["state"], row["resolution"]) == ("resolved", MOOT)
    assert await watching.watcher.run_once() is None


@pytest.mark.parametrize(
    "vm",
    [
        pytest.param(BrokenVm(last_sign_h=0.05), id="it wrote to its JobLog"),
        pytest.param(BrokenVm(last_sign_h=0.4), id="dead, but not for long enough"),
        pytest.param(BrokenVm(joblog_status="completed"), id="it finished"),
        pytest.param(BrokenVm(failover_status="failed"), id="it is no open one"),
    ],
)
async def test_what_is_alive_ended_or_only_just_dead_gets_none(watching: Watching, vm: BrokenVm) -> None:
    await watching.stage.add(vm)
    assert await watching.watcher.run_once() is None
    assert await watching.kinds() == []


async def test_life_that_only_cloudstack_shows_is_life(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    await watching.stage.add()
    cloud = watching.stage.cloud
    listed = cloud.list_volumes

    async def list_busy_volumes(volume_ids: Sequence[str]) -> list[CloudVolume]:
        return [replace(volume, pending_job_id="77") for volume in await listed(volume_ids)]

    with monkeypatch.context() as busy:
        busy.setattr(cloud, "list_volumes", list_busy_volumes)
        assert await watching.watcher.run_once() is None

    assert await watching.watcher.run_once() is None, "it is asked again only after a while"
    watching.watcher._looked.clear()
    assert await watching.watcher.run_once() == "Stuck: 1 issues opened, 0 closed."


async def test_nothing_is_said_of_a_failover_while_somebody_does_not_answer(watching: Watching) -> None:
    await watching.stage.add()
    watching.stage.cloud.weather.silent = True
    assert await watching.watcher.run_once() is None
    assert await watching.kinds() == []


async def test_what_would_refuse_the_clean_up_stands_in_the_guidance(watching: Watching) -> None:
    vm = await watching.stage.add()
    watching.stage.world.forget_snapshot(vm.snapshot_id(0))
    await watching.watcher.run_once()
    (row,) = await watching.stage.rows(oma_issues)
    assert [one["code"] for one in row["evidence"]["refusals"]] == ["snapshot_missing"]
    assert row["guidance"][1].startswith("2. Now it would be refused (snapshot_missing): ")


async def test_a_vm_whose_run_has_begun_needs_no_issue(watching: Watching) -> None:
    vm = await watching.stage.add()
    await watching.watcher.run_once()
    await watching.stage.submit(vm)
    assert await watching.watcher.run_once() == "Stuck: 0 issues opened, 1 closed."


async def test_a_job_of_ours_over_one_hour_is_counted_and_gets_an_issue(watching: Watching) -> None:
    vm = await watching.stage.add()
    job = await watching.stage.submit(vm)
    await watching.stage.claim()
    assert await watching.watcher.run_once() is None
    assert watching.watcher.jobs_stuck == 0

    await _age(watching.stage, job.id)
    assert await watching.watcher.run_once() == "Stuck: 1 issues opened, 0 closed."
    assert watching.watcher.jobs_stuck == 1
    (row,) = await watching.stage.rows(oma_issues)
    assert (row["kind"], row["job_id"], row["target"]) == (JOB_STUCK, None, {"job_id": job.id})
    assert f"oma jobs show {job.id}" in row["guidance"][0]
    assert await watching.watcher.run_once() is None


async def test_a_paused_job_is_not_stuck(watching: Watching) -> None:
    vm = await watching.stage.add()
    job = await watching.stage.submit(vm)
    await _age(watching.stage, job.id)
    await watching.watcher.run_once()
    assert await watching.kinds() == [JOB_STUCK]

    await pause(watching.stage.deps, ControlRequest(Scope.VM, vm_name=vm.name, reason="the auditor looks at it"))
    await watching.watcher.run_once()
    assert watching.watcher.jobs_stuck == 0
    assert await watching.kinds("resolved") == [JOB_STUCK]


async def test_many_vms_are_asked_about_in_turns(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oma.service.watching.LOOKS", 2)
    for number in range(3):
        await watching.stage.add(BrokenVm(name=f"vm{number}"))
    assert await watching.watcher.run_once() == "Stuck: 2 issues opened, 0 closed."
    assert await watching.watcher.run_once() == "Stuck: 1 issues opened, 0 closed."


async def _age(stage: Stage, job_id: str) -> None:
    old = "'2000-01-01 00:00:00.000000'"
    await stage.sql(f"UPDATE oma_jobs SET created_at = {old}, started_at = {old} WHERE id = '{job_id}'")
