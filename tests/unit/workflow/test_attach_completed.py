"""A volume is home only when the Volume Daemon has done its part as well: its mapping, and the export on it."""

from __future__ import annotations

import pytest

from oma.domain.actions import ActionKind, Upstream
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event, EventType
from oma.domain.resolving import Resolution
from oma.domain.states import JobState
from oma.service.issues import Said, resolve_issue
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage


async def test_an_attachment_that_stands_although_its_operation_failed_is_asked_for_again(stage: Stage) -> None:
    """CloudStack marks jobs failed whose work is done; the Volume Daemon then has no mapping and no export."""
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    stage.world.add_fault(FaultKind.JOB_FAIL_APPLIED, "attachVolume", errorcode=530, errortext="agent timed out")
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED
    (attach,) = await stage.actions(job.id, ActionKind.ATTACH_VOLUME)
    assert attach.attempt == 2
    assert stage.volumes.mappings[vm.volume_id(0)].operation_mode == "oma"
    assert stage.volumes.exported[vm.volume_id(0)]


async def test_one_that_fails_again_and_again_parks_although_the_volume_is_there(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    stage.world.add_fault(FaultKind.JOB_FAIL_APPLIED, "attachVolume", errorcode=530, errortext="agent timed out")

    def break_next(event: Event) -> None:
        if event.type is EventType.ACTION_FAILED:
            stage.volumes.broken[vm.volume_id(0)] = Upstream("Volume Daemon", "internal_error", "it met a fault")

    stage.deps.bus.on_event(break_next)
    job = await stage.submit(vm)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.PARKED
    assert job.error is not None
    assert "is on the OMA, but the Volume Daemon did not finish its part" in job.error["detail"]
    (issue,) = await stage.open_issues(job.id)
    with pytest.raises(OmaError) as refused:
        await resolve_issue(stage.deps, issue["id"], Said(Resolution.APPLIED, "it hangs there"))
    assert refused.value.code is Code.RESOLUTION_CONTRADICTED
    assert "mapping and export are missing" in str(refused.value)
    stage.volumes.broken.clear()
    await resolve_issue(stage.deps, issue["id"], Said(Resolution.ROLLED_BACK, "let the Volume Daemon finish"))
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.COMPLETED
    assert stage.volumes.exported[vm.volume_id(0)]
