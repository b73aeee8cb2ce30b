"""A volume that CloudStack lists no more has a word that lets its run go on without it, whatever it needed."""

from __future__ import annotations

import pytest

from database.tables import oma_leaks, vm_disks
from oma.domain.actions import ActionKind
from oma.domain.errors import Code, OmaError
from oma.domain.events import EventType
from oma.domain.issues import VOLUME_GONE
from oma.domain.jobs import Job
from oma.domain.resolving import Resolution
from oma.domain.states import JobState, Phase
from oma.service.issues import Said, resolve_issue
from ossea.simulator.model import seeding
from tests.fakes.scenario import OMA, BrokenVm, Disk
from tests.fakes.stage import Stage
from tests.fakes.world import OMA_VM_ID
from tests.unit.workflow.test_compensation import _at as at_event
from tests.unit.workflow.test_doors import attach_fails
from tests.unit.workflow.test_giving_up import killed_before, resolved

pytestmark = pytest.mark.rule("5-unknown-revert")
AT_HOME = Disk(place=OMA, mode="oma", snapshot=False, dirty=False)


async def one_stayed_home(stage: Stage) -> BrokenVm:
    """Its second disk never left the OMA, and nothing wrote to it: it needs no revert and no way home."""
    steps = ("source-vm-power-off",)
    return await stage.add(BrokenVm(disks=[Disk(), AT_HOME], test_vm_state="Stopped", steps=steps))


async def reverted_before(stage: Stage) -> BrokenVm:
    """By a partial run, so that the next one only has to attach its disks."""
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk()], test_vm_state="Stopped"))
    job = await stage.clean(vm, phases=(Phase.ANALYZE, Phase.DETACH, Phase.SNAPSHOTS))
    assert job.state is JobState.COMPLETED, job.error
    return vm


def take_off(stage: Stage, volume_id: str) -> None:
    """Its device, which the OMA keeps although CloudStack has forgotten the volume."""
    world = stage.world.model.world
    world.detach(world.volumes.rows[volume_id])
    seeding.release_device(world, world.volumes.rows[volume_id])
    stage.world.advance()


async def told(stage: Stage, job: Job) -> dict[str, object]:
    """The run parks once, with an issue that says what leads on."""
    await stage.work()
    parked = await stage.check(job.id)
    assert parked.state is JobState.PARKED
    (issue,) = await stage.open_issues(job.id)
    assert "no longer lists" in issue["title"]
    assert (issue["kind"], issue["severity"]) == (VOLUME_GONE, "critical")
    assert any("RESYNC" in step for step in issue["guidance"])
    return issue


async def goes_on_without(stage: Stage, vm: BrokenVm, job: Job, disk: int) -> None:
    await stage.work()
    ended = await stage.check(job.id)
    assert ended.state is JobState.COMPLETED, ended.error
    leaks = await stage.rows(oma_leaks, kind="volume_gone")
    assert [row["target"]["volume_id"] for row in leaks] == [vm.volume_id(disk)]
    assert await stage.status(vm) == "failed"
    assert ended.result is not None
    assert ended.result["replica"] == "resync_required"
    assert "it stays away" in ended.result["next"]
    assert stage.world.holder_of(vm.volume_id(1 - disk)) == OMA_VM_ID
    stored = {row["disk_id"]: row["disk_change_id"] for row in await stage.rows(vm_disks, vm_context_id=vm.context_id)}
    assert stored == {f"disk-{2000 + disk}": "", f"disk-{2001 - disk}": f"change-{1 - disk}"}


async def test_one_that_was_reverted_by_an_earlier_run(stage: Stage) -> None:
    vm = await reverted_before(stage)
    job = await killed_before(stage, vm, "attachVolume")
    stage.world.forget_volume(vm.volume_id(0))
    await told(stage, job)
    await resolved(stage, job, Resolution.RESYNC)
    await goes_on_without(stage, vm, job, 0)


async def test_one_that_vanishes_while_it_is_attached(stage: Stage) -> None:
    vm = await reverted_before(stage)
    attach_fails(stage, vm)
    job = await stage.submit(vm)
    at_event(stage, EventType.ACTION_FAILED, lambda: stage.world.forget_volume(vm.volume_id(0)))
    await stage.work()
    (issue,) = await stage.open_issues(job.id)
    assert issue["kind"] == ActionKind.ATTACH_VOLUME.value
    await resolved(stage, job, Resolution.RESYNC)
    await goes_on_without(stage, vm, job, 0)


async def test_one_that_never_left_the_oma(stage: Stage) -> None:
    vm = await one_stayed_home(stage)
    job = await killed_before(stage, vm, "attachVolume")
    assert [one.needs_revert for one in job.plan.volumes] == [True, False]
    stage.world.forget_volume(vm.volume_id(1))
    await told(stage, job)
    with pytest.raises(OmaError, match="still shows the device"):
        await resolved(stage, job, Resolution.RESYNC)
    take_off(stage, vm.volume_id(1))
    await resolved(stage, job, Resolution.RESYNC)
    await goes_on_without(stage, vm, job, 1)


async def test_one_that_was_home_already_after_its_proven_revert(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk(), Disk()], test_vm_state="Stopped"))
    job = await killed_before(stage, vm, "destroyVirtualMachine")
    stage.world.forget_volume(vm.volume_id(0))
    take_off(stage, vm.volume_id(0))
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    for issue in await stage.open_issues(job.id):
        lost = issue["kind"] == ActionKind.REVERT_SNAPSHOT.value
        word = Resolution.RESYNC if lost else Resolution.ROLLED_BACK
        await resolve_issue(stage.deps, issue["id"], Said(word, "Looked at it.", "anna"))
    await goes_on_without(stage, vm, job, 0)


async def test_one_that_is_found_again_goes_home(stage: Stage) -> None:
    vm = await reverted_before(stage)
    job = await killed_before(stage, vm, "attachVolume")
    stage.world.forget_volume(vm.volume_id(0))
    issue = await told(stage, job)
    stage.world.change_volume(vm.volume_id(0), state="Ready", removed=None)
    with pytest.raises(OmaError) as raised:
        await resolve_issue(stage.deps, str(issue["id"]), Said(Resolution.RESYNC, "It is lost.", "anna"))
    assert raised.value.code is Code.RESOLUTION_CONTRADICTED
    await resolved(stage, job, Resolution.ROLLED_BACK)
    await stage.work()
    ended = await stage.check(job.id)
    assert ended.state is JobState.COMPLETED, ended.error
    assert await stage.status(vm) == "ready_for_failover"
    assert await stage.rows(oma_leaks, kind="volume_gone") == []
