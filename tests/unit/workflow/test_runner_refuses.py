"""Runs that end before anything was touched, and runs of some phases only."""

from __future__ import annotations

import pytest

from database.tables import oma_issues
from oma.domain.errors import Code, OmaError, Refused
from oma.domain.events import EventType
from oma.domain.jobs import CleanupRequest
from oma.domain.states import PHASES, JobState, Phase, StepStatus
from oma.service.cleanup import plan_cleanup
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import NOWHERE, OMA, BrokenVm, Disk
from tests.fakes.stage import Stage

FIRST_TWO = (Phase.ANALYZE, Phase.DETACH)
FIRST_THREE = (Phase.ANALYZE, Phase.DETACH, Phase.SNAPSHOTS)


@pytest.mark.rule("2-handshake")
async def test_a_guard_that_refuses_under_the_jobs_own_claim_gives_the_status_back(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.submit(vm)
    assert await stage.status(vm) == "cleanup_required"
    stage.world.seed(vms=[{"id": "0f000000-0000-4000-8000-00000000000f", "name": "somebody-elses"}])
    stage.world.change_volume(vm.volume_id(1), vm_id="0f000000-0000-4000-8000-00000000000f")
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == Code.VOLUME_ON_FOREIGN_VM.value
    assert job.error["refusals"][0]["evidence"]["vm_name"] == "somebody-elses"
    assert await stage.status(vm) == "failed_over_test"
    assert stage.commands() == []
    assert stage.marks() == {}


async def test_the_place_is_free_again_after_a_refusal(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.submit(vm)
    stage.world.change_volume(vm.volume_id(1), state="Migrating")
    await stage.work()
    assert (await stage.check(job.id)).state is JobState.FAILED
    stage.world.change_volume(vm.volume_id(1), state="Ready")
    assert (await stage.clean(vm)).state is JobState.COMPLETED


async def test_a_vm_whose_record_vanished_ends_the_job_instead_of_claiming_it_for_ever(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.submit(vm)
    await stage.sql(f"DELETE FROM vm_replication_contexts WHERE context_id = '{vm.context_id}'")
    await stage.work()
    assert (await stage.job(job.id)).state is JobState.FAILED
    assert stage.commands() == []
    assert stage.marks() == {}


@pytest.mark.parametrize("system", ["cloud", "volumes"])
async def test_an_upstream_silent_before_the_first_action_is_state_unknown_without_an_issue(
    stage: Stage, system: str
) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.submit(vm)
    weather = stage.cloud.weather if system == "cloud" else stage.volumes.weather

    def go_silent(event: object) -> None:
        if getattr(event, "type", None) is EventType.PLAN_SAVED:
            weather.silent = True

    stage.deps.bus.on_event(go_silent)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == Code.STATE_UNKNOWN.value
    assert await stage.status(vm) == "failed_over_test"
    assert await stage.rows(oma_issues) == []


async def test_a_silent_upstream_in_the_analysis_is_named(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    stage.volumes.weather.silent = True
    with pytest.raises(Refused) as raised:
        await stage.submit(vm)
    assert {refusal.code for refusal in raised.value.refusals} == {Code.STATE_UNKNOWN}
    sentences = [refusal.sentence for refusal in raised.value.refusals]
    assert "Volume Daemon did not say which devices the OMA shows: no_answer: the connection was cut." in sentences
    assert await stage.status(vm) == "failed_over_test"


async def test_a_plan_that_changed_after_it_was_confirmed_is_not_carried_out(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Running"))
    plan = await plan_cleanup(stage.deps, CleanupRequest(vm.name))
    job = await stage.submit(vm, expect_plan=plan.digest)
    stage.world.change_vm(vm.test_vm_id, state="Stopped")
    await stage.work()
    job = await stage.check(job.id)
    assert job.error is not None
    assert job.error["code"] == Code.PLAN_STALE.value
    assert "was Running and is Stopped" in job.error["detail"]


async def test_a_confirmed_plan_is_carried_out_as_it_was_shown(stage: Stage) -> None:
    vm = await stage.add()
    plan = await plan_cleanup(stage.deps, CleanupRequest(vm.name))
    job = await stage.clean(vm, expect_plan=plan.digest)
    assert job.state is JobState.COMPLETED
    assert job.plan_digest == plan.digest


async def test_some_phases_run_and_the_next_run_goes_on_from_there(stage: Stage) -> None:
    vm = await stage.add()
    first = await stage.clean(vm, phases=FIRST_TWO)
    assert first.result is not None
    assert first.result["partial"] is True
    assert first.result["message"] == "Ran detach-attached-volumes for pgtest1; the VM is not cleaned up"
    steps = {step.phase: step.status for step in await stage.deps.jobs.list_steps(first.id)}
    assert [steps[phase] for phase in PHASES] == [StepStatus.COMPLETED] * 2 + [StepStatus.SKIPPED] * 3
    second = await stage.clean(vm)
    assert second.state is JobState.COMPLETED, second.error
    assert second.result is not None
    assert second.result["replica"] == "ready"
    assert stage.count("detachVolume") == len(vm.disks)


async def test_a_proven_revert_of_a_partial_run_is_not_repeated(stage: Stage) -> None:
    vm = await stage.add()
    await stage.clean(vm, phases=FIRST_THREE)
    second = await stage.clean(vm)
    assert second.state is JobState.COMPLETED, second.error
    assert stage.count("revertSnapshot") == len(vm.disks)


async def test_a_phase_is_not_begun_while_an_earlier_one_is_unproven(stage: Stage) -> None:
    vm = await stage.add()
    with pytest.raises(OmaError) as raised:
        await stage.submit(vm, phases=(Phase.ANALYZE, Phase.REATTACH))
    assert raised.value.code is Code.INVALID_REQUEST
    assert "begin with detach-attached-volumes" in raised.value.sentence
    assert await stage.status(vm) == "failed_over_test"


async def test_phases_that_are_too_late_by_the_time_of_the_run_are_refused(stage: Stage) -> None:
    """Between the call and the run somebody attaches the volume: there is an earlier phase again."""
    disk = Disk(place=NOWHERE, mode=None)
    vm = await stage.add(BrokenVm(disks=[disk], test_vm_state="Stopped"))
    job = await stage.submit(vm, phases=(Phase.ANALYZE, Phase.SNAPSHOTS))
    stage.world.change_volume(vm.volume_id(0), vm_id=vm.test_vm_id)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error["code"] == Code.PLAN_STALE.value
    assert "begin with detach-attached-volumes" in job.error["detail"]
    assert stage.commands() == []
    assert stage.marks() == {}


async def test_an_injection_that_never_reported_its_end_stops_where_nobody_can_tell_what_it_holds(stage: Stage) -> None:
    disks = [Disk(place=OMA, mode="oma")]
    vm = await stage.add(
        BrokenVm(disks=disks, steps=(), running_steps=("virtio-driver-injection",), test_vm_state=None)
    )
    stage.volumes.unread = ("process 1: Permission denied",)
    with pytest.raises(Refused) as raised:
        await stage.submit(vm)
    assert raised.value.sentence == (
        "Who holds the device of pgtest1-disk-0 on the OMA can't be told: the scan could not see everything: process "
        f"1: Permission denied. The driver injection of failover {vm.failover_job_id} never reported its end."
    )
    assert raised.value.code is Code.STATE_UNKNOWN


async def test_a_failed_run_of_one_vm_does_not_touch_another(stage: Stage) -> None:
    first, second = await stage.add(BrokenVm("one")), await stage.add(BrokenVm("two"))
    that = {"id": first.snapshot_id(0)}
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, match=that, times=None)
    assert (await stage.clean(first)).state is JobState.PARKED
    assert (await stage.clean(second)).state is JobState.COMPLETED
