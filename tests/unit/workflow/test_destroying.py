"""The test VM's last checks hold for every sending of its destruction, the first and those after a death."""

from __future__ import annotations

import pytest

from oma.domain.actions import ActionKind
from oma.domain.resolving import Resolution
from oma.domain.states import ActionState, JobState
from oma.service.issues import Said, resolve_issue
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage
from tests.unit.workflow.test_recovery import killed_before

pytestmark = pytest.mark.rule("7-destroy")
DESTROY = "destroyVirtualMachine"


async def stopped(stage: Stage) -> BrokenVm:
    return await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))


async def hang_on(stage: Stage, vm: BrokenVm) -> None:
    """Another VM's replica gets onto the stopped test VM."""
    other = await stage.add(BrokenVm(name="other", disks=[Disk(), Disk()], test_vm_state="Stopped"))
    stage.world.change_volume(other.volume_id(0), vm_id=vm.test_vm_id, device_id=0, type="ROOT")


async def test_a_destroy_that_was_never_sent_is_checked_again_after_a_death(stage: Stage) -> None:
    vm = await stopped(stage)
    job = await killed_before(stage, vm, DESTROY)
    await hang_on(stage, vm)
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.PARKED
    assert stage.count(DESTROY) == 0
    (destroy,) = await stage.actions(job.id, ActionKind.DESTROY_VM)
    assert destroy.state is ActionState.ROLLED_BACK
    titles = " ".join(issue["title"] for issue in await stage.open_issues(job.id))
    assert "holds the known volumes" in titles


async def test_a_test_vm_that_was_started_meanwhile_is_not_destroyed(stage: Stage) -> None:
    vm = await stopped(stage)
    job = await killed_before(stage, vm, DESTROY)
    stage.world.change_vm(vm.test_vm_id, state="Running")
    await stage.work()
    assert (await stage.job(job.id)).state is JobState.PARKED
    assert stage.count(DESTROY) == 0


async def test_a_destroy_whose_request_was_lost_is_checked_again_by_the_same_process(stage: Stage) -> None:
    vm = await stopped(stage)
    stage.cloud.weather.lose_requests.append(DESTROY)
    job = await stage.submit(vm)
    asked = stage.cloud.submit_destroy_vm

    async def lost(*args: object, **kwargs: object) -> str:
        try:
            return await asked(*args, **kwargs)  # type: ignore[arg-type]  # passed through as it came
        finally:
            stage.world.change_vm(vm.test_vm_id, state="Running")

    stage.cloud.submit_destroy_vm = lost  # type: ignore[method-assign]  # the world changes behind the call
    await stage.work()
    assert (await stage.job(job.id)).state is JobState.PARKED
    assert stage.count(DESTROY) == 0


async def test_the_destroy_goes_on_when_the_vm_is_stopped_again(stage: Stage) -> None:
    vm = await stopped(stage)
    job = await killed_before(stage, vm, DESTROY)
    stage.world.change_vm(vm.test_vm_id, state="Running")
    await stage.work()
    assert (await stage.job(job.id)).state is JobState.PARKED
    stage.world.change_vm(vm.test_vm_id, state="Stopped")
    (issue,) = await stage.open_issues(job.id)
    await resolve_issue(stage.deps, issue["id"], Said(Resolution.ROLLED_BACK, "It is stopped again.", "anna"))
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert stage.count(DESTROY) == 1
