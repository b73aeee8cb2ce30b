"""Whole runs: snapshots that only one place tracks, that a person names, and that change right before a revert."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from database.tables import device_mappings, failover_jobs, ossea_volumes
from oma.domain.actions import ActionKind
from oma.domain.errors import Code, Refused
from oma.domain.events import Event, EventType
from oma.domain.states import JobState
from oma.domain.words import Words
from tests.fakes.scenario import OMA, BrokenVm, Disk
from tests.fakes.stage import Stage

OTHER = "07be4000-5555-4000-8000-000000000000"


async def forget_tracking(stage: Stage, vm: BrokenVm) -> None:
    """No row tracks a snapshot of this VM any more."""
    volumes = ", ".join(f"'{one}'" for one in vm.volume_ids)
    await stage.sql(f"UPDATE ossea_volumes SET snapshot_id = NULL WHERE volume_id IN ({volumes})")
    await stage.sql(f"UPDATE device_mappings SET ossea_snapshot_id = NULL WHERE volume_uuid IN ({volumes})")


async def track_in_failover(stage: Stage, vm: BrokenVm, snapshot_id: str) -> None:
    await stage.sql(
        f"UPDATE failover_jobs SET ossea_snapshot_id = '{snapshot_id}' WHERE vm_context_id = '{vm.context_id}'"
    )


def make_snapshot(stage: Stage, vm: BrokenVm, disk: int, made: datetime) -> None:
    """An untracked one of ours."""
    row = {"id": OTHER, "volume_id": vm.volume_id(disk), "name": "test-failover-again", "created": made.timestamp()}
    stage.world.seed(snapshots=[row])


async def assert_cleared(stage: Stage, vm: BrokenVm) -> None:
    for row in await stage.rows(ossea_volumes, vm_context_id=vm.context_id):
        assert (row["snapshot_id"], row["snapshot_status"], row["snapshot_created_at"]) == ("", "none", None)
    for one in vm.volume_ids:
        for row in await stage.rows(device_mappings, volume_uuid=one):
            assert (row["ossea_snapshot_id"], row["snapshot_status"]) == ("", "none")
    assert {row["ossea_snapshot_id"] for row in await stage.rows(failover_jobs, vm_context_id=vm.context_id)} <= {
        "",
        None,
    }


@pytest.mark.parametrize("disk", [0, 1])
@pytest.mark.rule("5-tracking", "5-places")
async def test_one_that_only_the_failovers_row_tracks_is_reverted_to_deleted_and_cleared(
    stage: Stage, disk: int
) -> None:
    vm = await stage.add()
    await stage.sql(f"UPDATE ossea_volumes SET snapshot_id = NULL WHERE volume_id = '{vm.volume_id(disk)}'")
    await stage.sql(f"UPDATE device_mappings SET ossea_snapshot_id = '' WHERE volume_uuid = '{vm.volume_id(disk)}'")
    await track_in_failover(stage, vm, vm.snapshot_id(disk))
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    await assert_cleared(stage, vm)


async def test_one_that_only_the_mapping_tracks_does(stage: Stage) -> None:
    vm = await stage.add()
    await stage.sql("UPDATE ossea_volumes SET snapshot_id = ''")
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    await assert_cleared(stage, vm)


@pytest.mark.rule("5-tracking")
async def test_a_dead_id_in_the_failovers_row_is_cleared_too(stage: Stage) -> None:
    vm = await stage.add()
    await track_in_failover(stage, vm, "00000000-dead-4000-8000-000000000000")
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    await assert_cleared(stage, vm)


@pytest.mark.rule("5-candidate")
async def test_untracked_ones_are_used_and_deleted_only_where_a_person_names_them(stage: Stage) -> None:
    vm = await stage.add()
    await forget_tracking(stage, vm)
    with pytest.raises(Refused) as raised:
        await stage.submit(vm)
    assert raised.value.code is Code.SNAPSHOT_MISSING
    pairs = tuple((vm.volume_id(disk), vm.snapshot_id(disk)) for disk in range(2))
    for volume_id, snapshot_id in pairs:
        assert f"--snapshot {volume_id}={snapshot_id}" in raised.value.refusals[0].next_step
    words = Words(snapshots=tuple(sorted(pairs)), reason="the tracking failed")
    job = await stage.clean(vm, words=words)
    assert job.state is JobState.COMPLETED, job.error
    assert stage.count("deleteSnapshot") == len(pairs)


async def test_an_unnamed_one_beside_the_tracked_is_left(stage: Stage) -> None:
    vm = await stage.add()
    make_snapshot(stage, vm, 1, stage.clock.now())
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    assert stage.world.snapshot_is_listed(OTHER)
    assert any(OTHER in risk for risk in job.plan.risks)


async def test_a_rollback_that_died_is_not_begun_where_one_snapshot_is_gone(stage: Stage) -> None:
    """Its first volume may have been reverted or not; nothing says which."""
    vm = await stage.add(BrokenVm(failover_status="reverting", joblog_status="failed"))
    stage.world.forget_snapshot(vm.snapshot_id(0))
    with pytest.raises(Refused) as raised:
        await stage.submit(vm)
    (refusal,) = raised.value.refusals
    assert (refusal.code, refusal.evidence["volume_id"]) == (Code.SNAPSHOT_MISSING, vm.volume_id(0))
    assert stage.world.orders == []


@pytest.mark.rule("5-need")
async def test_a_volume_without_a_snapshot_that_never_left_the_oma_is_skipped(stage: Stage) -> None:
    left_out = Disk(place=OMA, mode="oma", snapshot=False, dirty=False)
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk(), left_out], steps=("vm-creation", "volume-attachment")))
    attached = (stage.clock.now() - timedelta(hours=9)).timestamp()
    stage.world.change_volume(vm.volume_id(2), attached=attached)
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED, job.error
    reverted = {one.target.volume_id for one in await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)}
    assert reverted == {vm.volume_id(0), vm.volume_id(1)}
    assert "it never left the OMA" in job.plan.get_volume(vm.volume_id(2)).revert_reason


@pytest.mark.rule("5-missing")
async def test_and_one_that_was_on_the_test_vm_stops_everything(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk(snapshot=False)]))
    with pytest.raises(Refused) as raised:
        await stage.submit(vm)
    assert raised.value.code is Code.SNAPSHOT_MISSING
    assert stage.world.orders == []


@pytest.mark.rule("5-again")
class TestRightBeforeEachRevert:
    """What changes after the analysis parks the run before the bytes do."""

    async def _park(self, stage: Stage, vm: BrokenVm, change: object) -> list[str]:
        """Runs until the point of no return is next, lets somebody change the world, and tells the issues' titles."""
        assert callable(change)
        job = await stage.submit(vm)

        def interfere(event: Event) -> None:
            if event.type is EventType.POINT_OF_NO_RETURN_PASSED:
                change()

        stage.deps.bus.on_event(interfere)
        await stage.work()
        job = await stage.check(job.id)
        assert job.state is JobState.PARKED
        assert stage.count("deleteSnapshot") == 0
        return [issue["title"] for issue in await stage.open_issues(job.id)]

    async def test_an_older_snapshot_of_ours_came_to_light(self, stage: Stage) -> None:
        between = stage.clock.now() - timedelta(minutes=115)
        vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
        titles = await self._park(stage, vm, lambda: make_snapshot(stage, vm, 1, between))
        assert any("may already hold what a failover wrote" in title for title in titles)
        assert ("revertSnapshot", vm.snapshot_id(1)) not in stage.commands()

    async def test_a_vm_snapshot_of_the_vm_that_held_it(self, stage: Stage) -> None:
        vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
        titles = await self._park(stage, vm, lambda: stage.world.add_vm_snapshot(vm.test_vm_id))
        assert any("carries a VM snapshot" in title for title in titles)
        assert stage.count("revertSnapshot") == 0

    async def test_the_snapshot_of_one_is_no_longer_whole(self, stage: Stage) -> None:
        vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
        titles = await self._park(stage, vm, lambda: stage.world.change_snapshot(vm.snapshot_id(1), state="Error"))
        assert any("is Error, not BackedUp" in title for title in titles)
        assert ("revertSnapshot", vm.snapshot_id(1)) not in stage.commands()

    async def test_it_is_asked_for_each_one_that_begins_later(self, stage: Stage) -> None:
        """With one revert at a time, the second is looked at when the first has ended, not before both."""
        vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
        job = await stage.submit(vm)

        def interfere(event: Event) -> None:
            if event.type is EventType.ACTION_EXECUTED and event.data.get("kind") == "revert_snapshot":
                stage.world.change_snapshot(vm.snapshot_id(1), revertable=False)

        stage.deps.bus.on_event(interfere)
        await stage.work(replace(stage.tools, figures=replace(stage.tools.figures, parallel=1)))
        assert (await stage.check(job.id)).state is JobState.PARKED
        assert ("revertSnapshot", vm.snapshot_id(0)) in stage.commands()
        assert ("revertSnapshot", vm.snapshot_id(1)) not in stage.commands()
        assert stage.count("deleteSnapshot") == 0
