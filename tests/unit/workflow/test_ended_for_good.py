"""A run whose journal can't be believed has a last door: it ends, and every disk of its VM is copied whole."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from database.tables import oma_actions, oma_audit, oma_leaks, vm_disks
from oma.domain.actions import ActionKind
from oma.domain.errors import Code, OmaError
from oma.domain.issues import INTERNAL, UNBELIEVABLE
from oma.domain.jobs import Job
from oma.domain.resolving import Resolution
from oma.domain.states import JobState
from oma.domain.words import Words
from oma.runtime.own_faults import build_park
from oma.service.control import resume_job
from oma.service.issues import Outcome, Said, resolve_issue
from ossea.simulator.model import FaultKind
from tests.fakes.invariants import rest_violations
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage
from tests.unit.workflow.test_giving_up import killed_before

pytestmark = pytest.mark.rule("5-unknown-revert")
LATER = timedelta(hours=2)
"""Past every call's `expires`, and past the window."""
TORN = {
    "no plan": "UPDATE oma_jobs SET plan = 'no JSON'",
    "half a plan": "UPDATE oma_jobs SET plan = '{}'",
    "an action of an unknown kind": "UPDATE oma_actions SET kind = 'teleport' WHERE kind = 'detach_volume'",
    "a lost step": "DELETE FROM job_steps WHERE seq = 2",
    "a revert before the point of no return": "UPDATE oma_jobs SET reverted = 0",
}


class Clocks:
    """Our clock and CloudStack's, `ahead` by the same; `ours` by that much more."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.ours = timedelta()

    @property
    def ahead(self) -> timedelta:
        return self._stage.cloud.server_ahead

    @ahead.setter
    def ahead(self, ahead: timedelta) -> None:
        self._stage.cloud.server_ahead = ahead

    def now(self) -> datetime:
        return self._stage.clock.now() + self.ahead + self.ours

    def monotonic(self) -> float:
        return self._stage.clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._stage.clock.sleep(seconds)


@pytest.fixture
def clock(stage: Stage) -> Clocks:
    clocks = Clocks(stage)
    stage.deps = replace(stage.deps, clock=clocks)
    return clocks


async def torn(stage: Stage, statement: str) -> tuple[BrokenVm, Job]:
    """Its first revert was journaled when the daemon died; then its rows were damaged."""
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk()], test_vm_state="Stopped"))
    job = await killed_before(stage, vm, "revertSnapshot")
    await stage.sql(statement)
    assert await parks(stage)
    return vm, job


async def parks(stage: Stage) -> bool:
    """Whoever would have worked on it parks it, at the claim or right after it."""
    claimed = await stage.deps.journal.claim_job("test", 30)
    if claimed is not None:
        await stage.deps.journal.apply(claimed.lease, [], stage.clock.now())
        await stage.break_off(claimed.job.id)
        await stage.work()
    return True


async def say(stage: Stage, job: Job, resolution: Resolution, kind: str = UNBELIEVABLE) -> Outcome:
    (issue,) = [one for one in await stage.open_issues(job.id) if one["kind"] == kind]
    return await resolve_issue(stage.deps, issue["id"], Said(resolution, "It is lost.", "anna"))


async def goes_home_to_be_copied_whole(stage: Stage, vm: BrokenVm) -> Job:
    """The next clean-up ends as after RESYNC: nothing is reverted, nothing deleted, and no replica is called good."""
    reverts, deleted = stage.count("revertSnapshot"), stage.count("deleteSnapshot")
    asked = await stage.submit(vm)
    await stage.work()
    job = await stage.job(asked.id)
    assert job.state is JobState.COMPLETED, job.error
    assert await rest_violations(stage, vm.context_id) == []
    assert job.result is not None
    assert job.result["replica"] == "resync_required"
    assert (stage.count("revertSnapshot"), stage.count("deleteSnapshot")) == (reverts, deleted)
    assert {stage.world.holder_of(one) for one in vm.volume_ids} == {stage.world.oma_vm_id}
    assert {row["disk_change_id"] for row in await stage.rows(vm_disks, vm_context_id=vm.context_id)} == {""}
    assert await stage.status(vm) == "failed"
    with pytest.raises(OmaError) as raised:
        await stage.submit(vm)
    assert raised.value.code is Code.NOTHING_TO_CLEAN
    return job


async def given_up(stage: Stage, clock: Clocks, *, lost: bool = True) -> BrokenVm:
    vm, job = await torn(stage, TORN["a lost step"])
    for hours in (1, 2):
        clock.ahead = hours * LATER
        await say(stage, job, Resolution.RESYNC)
    clock.ahead = timedelta()
    for snapshot_id in vm.snapshot_ids if lost else ():
        stage.world.forget_snapshot(snapshot_id)
    return vm


@pytest.mark.parametrize("place", ["nowhere", "test VM", "OMA"])
async def test_where_its_snapshots_are_gone_the_next_clean_up_brings_the_disks_home(
    stage: Stage, clock: Clocks, place: str
) -> None:
    """At the OMA it was put by hand, without a mapping and an export."""
    vm = await given_up(stage, clock)
    where = {"nowhere": None, "test VM": vm.test_vm_id, "OMA": stage.world.oma_vm_id}
    stage.world.change_volume(vm.volume_id(0), vm_id=where[place])
    job = await goes_home_to_be_copied_whole(stage, vm)
    assert {one.kind for one in job.plan.actions}.isdisjoint({ActionKind.REVERT_SNAPSHOT})


async def test_snapshots_that_are_left_are_kept_and_named(stage: Stage, clock: Clocks) -> None:
    vm = await given_up(stage, clock, lost=False)
    job = await goes_home_to_be_copied_whole(stage, vm)
    kept = {row["target"]["snapshot_id"] for row in await stage.rows(oma_leaks, kind="snapshot_kept")}
    assert kept == set(vm.snapshot_ids)
    assert all("is kept" in one.sentence for one in await stage.actions(job.id, ActionKind.DELETE_SNAPSHOT))


async def test_no_disk_goes_home_under_a_vm_that_was_stopped_by_force_and_not_seen_stopped_twice(
    stage: Stage, clock: Clocks
) -> None:
    vm = await given_up(stage, clock)
    stage.world.change_vm(vm.test_vm_id, state="Running")
    stage.world.change_volume(vm.volume_id(0), vm_id=vm.test_vm_id)
    stage.world.add_fault(FaultKind.JOB_FAIL, "stopVirtualMachine", times=2)
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    stage.cloud.weather.asked.clear()
    await resume_job(stage.deps, job.id, Words(force=True, resume=True, reason="Nobody needs it."))
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    forced = stage.world.accepted("stopVirtualMachine")[-1]
    attached = [one.at for one in stage.world.accepted("attachVolume") if one.at > forced.at]
    assert min(attached) - forced.at >= stage.tools.figures.stopped_again_s
    assert "find_host_state" in stage.cloud.weather.asked


@pytest.mark.parametrize("damage", TORN)
async def test_it_ends_and_the_vm_can_be_cleaned_again(stage: Stage, clock: Clocks, damage: str) -> None:
    vm, job = await torn(stage, TORN[damage])
    clock.ahead = LATER
    first = await say(stage, job, Resolution.RESYNC)
    assert first.waits
    assert first.settled.job_state is None
    clock.ahead = 2 * LATER
    last = await say(stage, job, Resolution.RESYNC)
    assert not last.waits
    assert last.settled.job_state is JobState.FAILED
    assert last.settled.open_issue_ids == ()
    assert {row["disk_change_id"] for row in await stage.rows(vm_disks, vm_context_id=vm.context_id)} == {""}
    assert await stage.status(vm) == "cleanup_required"
    left = [row for row in await stage.rows(oma_actions) if row["state"] in ("STARTED", "EXECUTION_FAILED")]
    assert {row["kind"] for row in left} == {ActionKind.CLEAR_MARKER.value}
    decisions = [row["decision"] for row in await stage.rows(oma_audit, job_id=job.id)]
    assert "failed" in decisions
    await goes_home_to_be_copied_whole(stage, vm)


UNREADABLE = ("no plan", "half a plan", "an action of an unknown kind")


@pytest.mark.parametrize("damage", UNREADABLE)
async def test_another_word_is_refused_as_long_as_nobody_has_put_the_row_right(stage: Stage, damage: str) -> None:
    _vm, job = await torn(stage, TORN[damage])
    for word in (Resolution.APPLIED, Resolution.ROLLED_BACK):
        with pytest.raises(OmaError) as raised:
            await say(stage, job, word)
        assert raised.value.code is Code.RESOLUTION_CONTRADICTED
        assert "say RESYNC" in raised.value.fields["next"]


async def test_it_says_since_when_it_waits_and_begins_the_wait_once(stage: Stage, clock: Clocks) -> None:
    _vm, job = await torn(stage, TORN["half a plan"])
    clock.ahead = LATER
    first = await say(stage, job, Resolution.RESYNC)
    clock.ahead += timedelta(seconds=stage.deps.revert_window_s / 2)
    second = await say(stage, job, Resolution.RESYNC)
    assert second.waits
    assert first.waits_until is not None
    assert second.waits_until is not None
    assert abs(second.waits_until - first.waits_until) < timedelta(seconds=stage.deps.revert_window_s / 4)


async def test_nothing_is_written_while_a_call_may_still_arrive(stage: Stage, clock: Clocks) -> None:
    _vm, job = await torn(stage, TORN["half a plan"])
    assert clock.ahead == timedelta()
    with pytest.raises(OmaError) as raised:
        await say(stage, job, Resolution.RESYNC)
    assert raised.value.code is Code.STATE_UNKNOWN
    assert "may still arrive" in raised.value.sentence


async def test_nothing_is_written_while_anything_is_at_its_volumes(stage: Stage, clock: Clocks) -> None:
    vm, job = await torn(stage, TORN["half a plan"])
    stage.world.change_volume(vm.volume_id(1), state="Snapshotting")
    clock.ahead = LATER
    with pytest.raises(OmaError) as raised:
        await say(stage, job, Resolution.RESYNC)
    assert raised.value.code is Code.STATE_UNKNOWN
    assert "with a job at it" in raised.value.sentence


async def test_a_fault_of_the_daemon_that_comes_again_and_again_has_the_same_door(stage: Stage, clock: Clocks) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await killed_before(stage, vm, "detachVolume")
    claimed = await stage.claim()
    actions = await stage.actions(job.id)
    changes = build_park(claimed.job, actions, stage.deps.ids, stage.clock.now())
    await stage.deps.journal.apply(claimed.lease, changes, stage.clock.now())
    (issue,) = [one for one in await stage.open_issues(job.id) if one["kind"] == INTERNAL]
    assert any("--resolution APPLIED|ROLLED_BACK|RESYNC" in step for step in issue["guidance"])
    clock.ahead = LATER
    outcome = await say(stage, job, Resolution.RESYNC, INTERNAL)
    assert not outcome.waits, "no revert was begun, so that there is none to wait for"
    assert (await stage.check(job.id)).state is JobState.FAILED
    assert await stage.open_issues(job.id) == []
    (detach,) = await stage.actions(job.id, ActionKind.DETACH_VOLUME)
    assert stage.count("detachVolume") == 0
    assert detach.evidence["resolved"]["resolution"] == "RESYNC"
