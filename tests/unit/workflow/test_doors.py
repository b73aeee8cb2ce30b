"""Every parked run has a word that leads on: none comes back to the same park whatever a person says."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from database.tables import oma_leaks
from oma.domain.actions import ActionKind, Upstream
from oma.domain.errors import Code, OmaError
from oma.domain.events import EventType
from oma.domain.jobs import Job
from oma.domain.resolving import Resolution
from oma.domain.states import ActionState, JobState
from oma.service.control import cancel_job
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage
from tests.fakes.world import OMA_VM_ID
from tests.unit.workflow.test_compensation import _at as at_event
from tests.unit.workflow.test_compensation import refuse_detach
from tests.unit.workflow.test_giving_up import killed_before, resolved

pytestmark = pytest.mark.rule("8-undone")
BROKEN = Upstream("Volume Daemon", "internal_error", "It fell over.")


async def dies_over_its_detach(stage: Stage, job: Job, times: int) -> None:
    """The daemon that works on it dies, again and again, when the first detach is about to be sent."""
    weather = stage.volumes.weather
    for _ in range(times):
        weather.gates["detachVolume"] = asyncio.Event()
        weather.asked.clear()
        running = asyncio.create_task(stage.work())
        await weather.until_asked("detachVolume")
        running.cancel()
        await asyncio.wait({running})
        weather.gates.clear()
        await stage.break_off(job.id)


async def poisoned(stage: Stage, vm: BrokenVm) -> Job:
    """Parked because it took one daemon after the other with it; its first detach is uncertain."""
    stage.tools = replace(stage.tools, figures=replace(stage.tools.figures, job_recoveries=1))
    job = await stage.submit(vm)
    await dies_over_its_detach(stage, job, 2)
    await stage.work()
    assert (await stage.job(job.id)).state is JobState.PARKED
    return job


async def stuck_on_the_way_back(stage: Stage, vm: BrokenVm) -> Job:
    """A detach is refused, and the OMA is not Running when the first volume is to go home; then it runs again."""
    refuse_detach(stage, vm, 0)
    at_event(stage, EventType.UNDOING_BEGUN, lambda: stage.world.change_vm(OMA_VM_ID, state="Stopped"))
    job = await stage.submit(vm)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    detaches = await stage.actions(job.id, ActionKind.DETACH_VOLUME)
    assert ActionState.ROLLBACK_FAILED in {one.state for one in detaches}
    stage.world.change_vm(OMA_VM_ID, state="Running")
    return job


async def all_home(stage: Stage, vm: BrokenVm, job: Job, state: JobState) -> None:
    await stage.work()
    ended = await stage.check(job.id)
    assert ended.state is state, ended.error
    at_home = {OMA_VM_ID, vm.test_vm_id}
    assert {stage.world.holder_of(volume_id) for volume_id in vm.volume_ids} <= at_home


@pytest.mark.parametrize("word", [Resolution.APPLIED, Resolution.ROLLED_BACK])
async def test_on_the_way_back_either_word_lets_the_run_look_again(stage: Stage, word: Resolution) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stuck_on_the_way_back(stage, vm)
    await resolved(stage, job, word)
    await all_home(stage, vm, job, JobState.FAILED)


async def test_on_the_way_back_a_cancel_lets_the_run_look_again(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stuck_on_the_way_back(stage, vm)
    for issue in await stage.open_issues(job.id):
        assert any(f"oma undo {job.id}" in step for step in issue["guidance"])
    await cancel_job(stage.deps, job.id, "It runs again.", actor="eva")
    await all_home(stage, vm, job, JobState.FAILED)


async def test_a_second_cancel_of_a_run_that_parked_on_its_way_back_is_heard(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    at_event(stage, EventType.UNDOING_BEGUN, lambda: stage.world.change_vm(OMA_VM_ID, state="Stopped"))
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work())
    await stage.volumes.weather.until_asked("detachVolume")
    await cancel_job(stage.deps, job.id, "Wrong VM.", actor="eva")
    await running
    assert (await stage.check(job.id)).state is JobState.PARKED
    stage.world.change_vm(OMA_VM_ID, state="Running")
    assert (await cancel_job(stage.deps, job.id, "It runs again.", actor="eva")).state is JobState.QUEUED
    assert (await cancel_job(stage.deps, job.id, "Twice.", actor="eva")).state is JobState.QUEUED
    await all_home(stage, vm, job, JobState.CANCELLED)


@pytest.mark.parametrize("word", [Resolution.APPLIED, Resolution.ROLLED_BACK])
async def test_a_detach_that_a_person_settled_is_undone_like_any_other(stage: Stage, word: Resolution) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await poisoned(stage, vm)
    if word is Resolution.APPLIED:
        stage.world.change_volume(vm.volume_id(0), vm_id=None)
    await resolved(stage, job, word)
    await cancel_job(stage.deps, job.id, "Wrong VM.", actor="eva")
    await all_home(stage, vm, job, JobState.CANCELLED)


async def test_a_volume_that_was_brought_home_and_taken_off_by_hand_is_brought_home_again(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk(), Disk()], test_vm_state="Stopped"))
    refuse_detach(stage, vm, 0)
    at_event(stage, EventType.UNDOING_BEGUN, lambda: stage.volumes.broken.update({vm.volume_id(2): BROKEN}))
    job = await stage.submit(vm)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    stage.world.change_volume(vm.volume_id(1), vm_id=None)
    stage.volumes.broken.clear()
    await cancel_job(stage.deps, job.id, "Again.", actor="eva")
    await all_home(stage, vm, job, JobState.FAILED)


async def test_a_cancelled_run_that_took_the_daemons_with_it_goes_back(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await poisoned(stage, vm)
    await cancel_job(stage.deps, job.id, "Wrong VM.", actor="eva")
    await all_home(stage, vm, job, JobState.CANCELLED)


async def test_a_word_that_settles_another_issue_lifts_no_cancel(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    stage.tools = replace(stage.tools, figures=replace(stage.tools.figures, job_recoveries=1))
    job = await stage.submit(vm)
    await dies_over_its_detach(stage, job, 2)
    await cancel_job(stage.deps, job.id, "Wrong VM.", actor="eva")
    await stage.work()
    assert (await stage.job(job.id)).state is JobState.PARKED
    await resolved(stage, job, Resolution.ROLLED_BACK)
    await all_home(stage, vm, job, JobState.CANCELLED)
    assert stage.count("revertSnapshot") == 0


async def test_a_revert_whose_id_was_given_up_can_be_given_up_too(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await killed_before(stage, vm, "revertSnapshot")
    stage.world.forget_snapshot(vm.snapshot_id(0))
    await stage.work()
    (revert,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    assert revert.state is ActionState.ROLLED_BACK
    await resolved(stage, job, Resolution.RESYNC)
    await all_home(stage, vm, job, JobState.COMPLETED)
    assert await stage.status(vm) == "failed"


@pytest.mark.parametrize("disk", [0, 1])
async def test_a_volume_that_is_gone_for_good_keeps_no_other_from_going_home(stage: Stage, disk: int) -> None:
    """Lost before the first revert was sent, and given up: it stays away, named, and is copied whole."""
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk()], test_vm_state="Stopped"))
    job = await killed_before(stage, vm, "revertSnapshot")
    stage.world.forget_volume(vm.volume_id(disk))
    for _ in range(3):
        await stage.work()
        if (await stage.job(job.id)).state is not JobState.PARKED:
            break
        await resolved(stage, job, Resolution.RESYNC)
    ended = await stage.check(job.id)
    assert ended.state is JobState.COMPLETED, ended.error
    assert await stage.status(vm) == "failed"
    assert stage.world.holder_of(vm.volume_id(1 - disk)) == OMA_VM_ID
    assert vm.volume_id(disk) in {
        row["target"].get("volume_id") for row in await stage.rows(oma_leaks, kind="volume_gone")
    }
    assert ended.result is not None
    assert ended.result["replica"] == "resync_required"
    assert "it stays away" in ended.result["next"]


@pytest.mark.parametrize("word", [Resolution.RESYNC, Resolution.APPLIED], ids=["given up", "found again"])
async def test_a_volume_that_is_gone_after_its_proven_revert_is_given_up_or_found_again(
    stage: Stage, word: Resolution
) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk()], test_vm_state="Stopped"))
    job = await killed_before(stage, vm, "attachVolume")
    stage.world.forget_volume(vm.volume_id(0))
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    (issue,) = await stage.open_issues(job.id)
    assert "no longer lists" in issue["title"]
    with pytest.raises(OmaError):
        await resolved(stage, job, Resolution.ROLLED_BACK)
    if word is Resolution.APPLIED:
        stage.world.change_volume(vm.volume_id(0), state="Ready", removed=None)
    await resolved(stage, job, word)
    await stage.work()
    ended = await stage.check(job.id)
    assert ended.state is JobState.COMPLETED, ended.error
    gone = {row["target"].get("volume_id") for row in await stage.rows(oma_leaks, kind="volume_gone")}
    assert gone == ({vm.volume_id(0)} if word is Resolution.RESYNC else set())
    assert stage.world.holder_of(vm.volume_id(1)) == OMA_VM_ID


async def test_a_resync_that_would_give_nothing_up_is_refused(stage: Stage) -> None:
    """The revert was settled by another word, and what stands in the way is something else."""
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=431, errortext="No.")
    job = await stage.submit(vm)
    await stage.work()
    await resolved(stage, job, Resolution.APPLIED)
    stage.world.change_vm(OMA_VM_ID, state="Stopped")
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    with pytest.raises(OmaError) as raised:
        await resolved(stage, job, Resolution.RESYNC)
    assert raised.value.code is Code.RESOLUTION_CONTRADICTED
    assert len(await stage.open_issues(job.id)) == 1
    stage.world.change_vm(OMA_VM_ID, state="Running")
    await resolved(stage, job, Resolution.APPLIED)
    await all_home(stage, vm, job, JobState.COMPLETED)


async def test_a_word_about_the_cancel_itself_lets_the_run_go_on(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await killed_before(stage, vm, "deleteSnapshot")
    await cancel_job(stage.deps, job.id, "Wrong VM.", actor="eva")
    await stage.work()
    (issue,) = await stage.open_issues(job.id)
    assert issue["kind"] == "cancelled"
    await resolved(stage, job, Resolution.APPLIED)
    await all_home(stage, vm, job, JobState.COMPLETED)


async def test_on_the_way_back_nothing_is_left_to_be_copied_whole(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stuck_on_the_way_back(stage, vm)
    with pytest.raises(OmaError) as raised:
        await resolved(stage, job, Resolution.RESYNC)
    assert raised.value.code is Code.INVALID_REQUEST


@pytest.mark.parametrize("word", [None, Resolution.APPLIED], ids=["cancel", "word"])
async def test_on_the_way_back_a_volume_that_is_gone_is_told_once_and_then_left(
    stage: Stage, word: Resolution | None
) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk(), Disk()], test_vm_state="Stopped"))
    refuse_detach(stage, vm, 0)
    at_event(stage, EventType.UNDOING_BEGUN, lambda: stage.world.forget_volume(vm.volume_id(1)))
    job = await stage.submit(vm)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    assert any("no longer lists" in issue["title"] for issue in await stage.open_issues(job.id))
    if word is None:
        await cancel_job(stage.deps, job.id, "It is lost.", actor="eva")
    else:
        await resolved(stage, job, word)
    await stage.work()
    ended = await stage.check(job.id)
    assert ended.state is JobState.FAILED, ended.error
    assert {row["target"]["volume_id"] for row in await stage.rows(oma_leaks, kind="volume_gone")} == {vm.volume_id(1)}
    assert stage.world.holder_of(vm.volume_id(2)) == OMA_VM_ID
    assert await stage.status(vm) == "cleanup_required"


def attach_fails(stage: Stage, vm: BrokenVm) -> None:
    match = {"id": vm.volume_id(0)}
    stage.world.add_fault(FaultKind.JOB_FAIL, "attachVolume", errorcode=530, match=match)


async def test_a_volume_that_vanishes_while_it_is_attached_is_given_up(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk()], test_vm_state="Stopped"))
    attach_fails(stage, vm)
    job = await stage.submit(vm)
    at_event(stage, EventType.ACTION_FAILED, lambda: stage.world.forget_volume(vm.volume_id(0)))
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    (issue,) = [one for one in await stage.open_issues(job.id) if one["kind"] == ActionKind.ATTACH_VOLUME.value]
    assert any("RESYNC" in step for step in issue["guidance"])
    for word in (Resolution.APPLIED, Resolution.ROLLED_BACK):
        with pytest.raises(OmaError) as raised:
            await resolved(stage, job, word)
        assert raised.value.code is Code.RESOLUTION_CONTRADICTED
    await resolved(stage, job, Resolution.RESYNC)
    await stage.work()
    ended = await stage.check(job.id)
    assert ended.state is JobState.COMPLETED, ended.error
    gone = {row["target"]["volume_id"] for row in await stage.rows(oma_leaks, kind="volume_gone")}
    assert gone == {vm.volume_id(0)}
    assert await stage.status(vm) == "failed"


async def test_an_attach_of_a_volume_that_is_there_is_not_given_up(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    attach_fails(stage, vm)
    job = await stage.submit(vm)
    await stage.work()
    with pytest.raises(OmaError) as raised:
        await resolved(stage, job, Resolution.RESYNC)
    assert raised.value.code is Code.RESOLUTION_CONTRADICTED
    await resolved(stage, job, Resolution.ROLLED_BACK)
    await all_home(stage, vm, job, JobState.COMPLETED)


async def test_a_detach_that_was_under_way_when_its_volume_went_is_ended_with_the_run(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await killed_before(stage, vm, "detachVolume")
    stage.world.forget_volume(vm.volume_id(0))
    await cancel_job(stage.deps, job.id, "It is lost.", actor="eva")
    await stage.work()
    if (await stage.check(job.id)).state is JobState.PARKED:
        await cancel_job(stage.deps, job.id, "It is lost.", actor="eva")
        await stage.work()
    assert (await stage.check(job.id)).state is JobState.CANCELLED
    (detach,) = await stage.actions(job.id, ActionKind.DETACH_VOLUME)
    assert detach.state is not ActionState.STARTED
