"""Whole runs over drills, live failovers and VMs that nobody recorded: what is touched, and what is not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from database.tables import failover_jobs
from oma.domain.errors import Code, Refused
from oma.domain.states import JobState
from oma.domain.words import Words
from ossea.simulator.model import catalog
from tests.fakes.scenario import NOWHERE, BrokenVm, Disk, uid
from tests.fakes.stage import Stage

STEPS = ("source-vm-power-off", "vm-creation", "volume-attachment")


@pytest.mark.rule("2-finished-test")
async def test_a_drill_ends_by_a_persons_word_alone(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(failover_status="completed", joblog_status="completed"))
    with pytest.raises(Refused) as refused:
        await stage.submit(vm)
    assert refused.value.code is Code.TEST_FAILOVER_ACTIVE
    assert stage.world.orders == []
    job = await stage.clean(vm, words=Words(end_test=True, reason="nobody is on it"))
    assert job.state is JobState.COMPLETED
    assert stage.world.vm_state(vm.test_vm_id) == "Destroyed"
    (row,) = await stage.rows(failover_jobs, vm_context_id=vm.context_id)
    assert row["status"] == "completed", "the drill was no failure"
    assert await stage.status(vm) == "ready_for_failover"


async def live(stage: Stage, *, startvm: str = "false") -> BrokenVm:
    """A dead live failover whose VM CloudStack itself deployed; the disks hang on it."""
    vm = BrokenVm(job_type="live", test_vm_state=None, steps=STEPS, disks=[Disk(place=NOWHERE), Disk(place=NOWHERE)])
    await stage.add(vm)
    vm_id = await deploy(stage, vm, f"{vm.name}-live", startvm=startvm)
    for number, volume_id in enumerate(vm.volume_ids):
        stage.world.change_volume(volume_id, vm_id=vm_id, device_id=number + 1)
    await stage.sql(f"UPDATE failover_jobs SET destination_vm_id = '{vm_id}' WHERE vm_context_id = '{vm.context_id}'")
    return vm


async def deploy(stage: Stage, vm: BrokenVm, name: str, *, startvm: str = "false") -> str:
    job_id = uid("deploy", vm.name, name)
    place = {
        "zoneid": catalog.ZONES[0]["id"],
        "serviceofferingid": catalog.SERVICE_OFFERINGS[0]["id"],
        "templateid": catalog.TEMPLATES[0]["id"],
    }
    stage.world.order("deployVirtualMachine", job_id, name=name, startvm=startvm, **place)
    job = await stage.world.wait_until_ended(job_id)
    stage.world.orders.clear()
    return str(job.instance_id)


@pytest.mark.rule("2-live-never-started")
async def test_a_live_vm_that_never_started_is_emptied_and_never_destroyed(stage: Stage) -> None:
    vm = await live(stage)
    (row,) = await stage.rows(failover_jobs, vm_context_id=vm.context_id)
    vm_id = row["destination_vm_id"]
    with pytest.raises(Refused) as refused:
        await stage.submit(vm)
    assert refused.value.code is Code.LIVE_FAILOVER
    assert vm_id in refused.value.fields["next"]
    said = Words(force=True, destination_vm_id=vm_id, reason="given up")
    job = await stage.submit(vm, words=said)
    await stage.work()
    job = await stage.job(job.id)
    assert job.state is JobState.COMPLETED
    assert stage.world.vm_state(vm_id) == "Stopped"
    assert {stage.world.holder_of(one) for one in vm.volume_ids} == {stage.world.oma_vm_id}
    assert not {command for command, _ in stage.commands()} & {"destroyVirtualMachine", "stopVirtualMachine"}
    assert job.result is not None
    assert job.result["next"].startswith("The source VM was powered off by this failover")
    assert f"The VM {vm.name}-live of the live failover was emptied and left" in job.result["next"]


@pytest.mark.rule("2-live-started")
async def test_a_live_vm_that_started_is_never_touched_whatever_is_said(stage: Stage) -> None:
    vm = await live(stage, startvm="true")
    (row,) = await stage.rows(failover_jobs, vm_context_id=vm.context_id)
    stage.world.change_vm(row["destination_vm_id"], state="Stopped")
    with pytest.raises(Refused) as refused:
        await stage.submit(vm, words=Words(force=True, destination_vm_id=row["destination_vm_id"], reason="x"))
    assert refused.value.code is Code.LIVE_FAILOVER
    assert stage.world.orders == []


async def lost(stage: Stage, *, off: timedelta = timedelta(0), startvm: str = "false") -> tuple[BrokenVm, str]:
    """A test VM was created and never recorded; the disks never left the OMA's records."""
    vm = await stage.add(BrokenVm(test_vm_state=None, disks=[Disk(place=NOWHERE), Disk(place=NOWHERE)]))
    (row,) = await stage.rows(failover_jobs, vm_context_id=vm.context_id)
    stamp = int((row["created_at"] + off).timestamp())
    vm_id = await deploy(stage, vm, f"{vm.name}-test-{stamp}", startvm=startvm)
    vm.other_vm_ids.append(vm_id)
    return vm, vm_id


@pytest.mark.rule("7-known")
async def test_a_test_vm_that_nobody_recorded_is_destroyed_by_its_name(stage: Stage) -> None:
    vm, vm_id = await lost(stage)
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED
    assert stage.world.vm_state(vm_id) == "Destroyed"


@pytest.mark.parametrize(("off_s", "startvm"), [(600, "false"), (0, "true")])
async def test_one_in_doubt_is_left_alone_and_named_in_the_end(stage: Stage, off_s: int, startvm: str) -> None:
    vm, vm_id = await lost(stage, off=timedelta(seconds=off_s), startvm=startvm)
    before = stage.world.vm_state(vm_id)
    job = await stage.clean(vm)
    assert job.state is JobState.COMPLETED
    assert stage.world.vm_state(vm_id) == before
    assert job.result is not None
    assert f"({vm_id})" in job.result["next"]
    assert "it was left alone" in job.result["next"]
