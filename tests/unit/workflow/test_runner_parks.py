"""Runs that cannot go on by themselves: what they leave alone, and what they say."""

from __future__ import annotations

import asyncio

import pytest

from database.tables import job_tracking, oma_issues
from oma.domain.actions import MARKER_KINDS, ActionKind, Upstream
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event, EventType
from oma.domain.jobs import Job
from oma.domain.remote import RemoteOutcome, RemoteStatus
from oma.domain.states import ActionState, JobState, Phase, StepStatus
from oma.service.cleanup import wait_for_job
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage

STOPPED = "Stopped"
HASTY_ANSWERS = 5


def _error(job: Job) -> dict[str, object]:
    assert job.error is not None
    return job.error


async def _needs_resolution(stage: Stage, vm: BrokenVm) -> OmaError:
    with pytest.raises(OmaError) as raised:
        await stage.submit(vm)
    assert raised.value.code is Code.NEEDS_RESOLUTION
    return raised.value


@pytest.mark.rule("4-431")
async def test_a_detach_refused_while_still_attached_fails_with_cloudstacks_words(stage: Stage) -> None:
    text = "Unable to detach volume, please specify a VM that does not have VM snapshots"
    stage.world.add_fault(FaultKind.JOB_FAIL, "detachVolume", errorcode=431, errortext=text)
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    job = await stage.clean(vm)
    assert job.state is JobState.FAILED
    assert _error(job)["upstream"] == {"system": "CloudStack", "code": "431", "text": text}
    assert _error(job)["phase"] == Phase.DETACH.value
    assert stage.count("revertSnapshot") == stage.count("attachVolume") == 0
    assert stage.world.holder_of(vm.volume_id(0)) == vm.test_vm_id
    assert await stage.open_issues(job.id) == []


@pytest.mark.rule("5-proof")
async def test_a_failed_revert_parks_keeps_every_snapshot_and_attaches_nothing(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, errortext="agent timed out", times=2)
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    assert _error(job)["code"] == Code.CLEANUP_FAILED.value
    assert "agent timed out" in str(_error(job)["detail"])
    assert stage.count("deleteSnapshot") == stage.count("attachVolume") == stage.count("destroyVirtualMachine") == 0
    (issue,) = await stage.open_issues(job.id)
    assert (issue["severity"], issue["id"]) == ("critical", _error(job)["issue_id"])
    assert issue["guidance"][0].startswith("1. Do not attach or start anything on this volume")
    (row,) = await stage.rows(job_tracking, id=job.id)
    assert row["status"] == "failed"
    assert row["error_message"].startswith("parked: ")
    error = await _needs_resolution(stage, vm)
    assert (error.fields["job_id"], error.fields["issue_ids"]) == (job.id, [issue["id"]])
    assert stage.count("revertSnapshot") == 2


async def test_when_one_of_two_reverts_fails_the_outcome_of_the_other_is_recorded(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    match = {"id": vm.snapshot_id(0)}
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, match=match, times=2)
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    states = {one.target.snapshot_id: one.state for one in await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)}
    assert states == {
        vm.snapshot_id(0): ActionState.EXECUTION_FAILED,
        vm.snapshot_id(1): ActionState.EXECUTED,
    }
    assert stage.count("deleteSnapshot") == stage.count("attachVolume") == 0


async def test_two_failures_open_two_issues(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, times=4)
    job = await stage.clean(vm)
    issues = await stage.open_issues(job.id)
    assert {row["id"] for row in issues} == set(_error(job)["issue_ids"])  # type: ignore[call-overload]
    assert len(issues) == 2


@pytest.mark.rule("5-proof")
async def test_a_revert_whose_job_fails_although_it_was_applied_is_not_proven(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL_APPLIED, "revertSnapshot", errorcode=530, times=2)
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    (issue,) = await stage.open_issues(job.id)
    assert issue["evidence"]["unknown"] is True


@pytest.mark.parametrize("command", ["stopVirtualMachine", "revertSnapshot", "deleteSnapshot", "destroyVirtualMachine"])
@pytest.mark.rule("6-own-ids")
async def test_a_lost_answer_of_cloudstack_is_found_by_its_id_and_followed(stage: Stage, command: str) -> None:
    stage.cloud.weather.lose_answers.append(command)
    job = await stage.clean(await stage.add(BrokenVm(disks=[Disk()])))
    assert job.state is JobState.COMPLETED, job.error
    assert stage.count(command) == 1


@pytest.mark.parametrize("command", ["detachVolume", "attachVolume"])
async def test_a_lost_answer_of_the_volume_daemon_is_found_by_its_id_and_followed(stage: Stage, command: str) -> None:
    stage.volumes.weather.lose_answers.append(command)
    job = await stage.clean(await stage.add(BrokenVm(disks=[Disk()])))
    assert job.state is JobState.COMPLETED, job.error
    assert stage.count(command) == 1


@pytest.mark.rule("6-own-ids")
async def test_a_call_that_is_lost_every_time_parks_and_says_that_it_never_arrived(stage: Stage) -> None:
    stage.cloud.weather.lose_requests += ["revertSnapshot"] * 3
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    assert _error(job)["code"] == Code.CLOUDSTACK_TIMEOUT.value
    assert "was lost each time, never arrived and can't any more" in str(_error(job)["detail"])
    assert stage.cloud.weather.asked.count("revertSnapshot") == 3
    assert stage.count("revertSnapshot") == 0
    (issue,) = await stage.open_issues(job.id)
    assert issue["evidence"]["unknown"] is False, "its id is spent, so that it can never run"


async def test_a_lost_answer_with_nobody_to_ask_says_so(stage: Stage) -> None:
    stage.cloud.weather.lose_answers.append("revertSnapshot")
    stage.cloud.weather.silent_for = {"query_job"}
    job = await stage.clean(await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED)))
    assert job.state is JobState.PARKED
    assert "whether it arrived can't be told" in str(_error(job)["detail"])
    (issue,) = await stage.open_issues(job.id)
    assert issue["evidence"]["unknown"] is True


async def test_a_call_that_certainly_was_not_sent_is_sent_again_under_the_same_id(stage: Stage) -> None:
    """The Volume Daemon restarts for a moment: nothing arrived, so nothing is uncertain."""
    stage.volumes.weather.not_sent += ["detachVolume"] * 2
    job = await stage.clean(await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED)))
    assert job.state is JobState.COMPLETED, job.error
    assert stage.count("detachVolume") == 1


async def test_a_call_that_can_never_be_sent_parks_and_says_that_nothing_was_changed(stage: Stage) -> None:
    stage.volumes.weather.not_sent += ["attachVolume"] * 10_000
    job = await stage.clean(await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED)))
    assert job.state is JobState.PARKED
    (issue,) = await stage.open_issues(job.id)
    assert issue["evidence"]["unknown"] is False
    assert "it was never sent" in str(_error(job)["detail"])


async def test_an_overdue_operation_is_said_followed_to_its_end_and_then_undone(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state=STOPPED))
    end = stage.volumes.late[vm.volume_id(0)] = asyncio.Event()
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work())
    waited = await wait_for_job(stage.deps, job.id, 30)
    assert waited.overdue is not None
    assert not waited.ended
    assert waited.overdue["code"] == Code.VOLUME_DAEMON_TIMEOUT.value
    (overdue,) = [event for event in stage.events if event.type is EventType.ACTION_OVERDUE]
    assert overdue.data["kind"] == "detach_volume"
    assert stage.count("revertSnapshot") == 0
    end.set()
    await running
    parked = await stage.check(job.id)
    assert parked.state is JobState.FAILED
    assert _error(parked)["code"] == Code.VOLUME_DAEMON_TIMEOUT.value
    states = {one.state for one in await stage.actions(job.id, ActionKind.DETACH_VOLUME)}
    assert states == {ActionState.ROLLED_BACK}
    assert stage.count("revertSnapshot") == 0


async def test_nothing_new_is_begun_once_an_operation_is_overdue(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk() for _ in range(20)], test_vm_state=STOPPED))
    end = stage.volumes.late[vm.volume_id(0)] = asyncio.Event()
    job = await stage.submit(vm)
    running = asyncio.create_task(stage.work())
    waited = await wait_for_job(stage.deps, job.id, 30)
    assert waited.overdue is not None
    before = len(stage.volumes.operations)
    while any(
        one.outcome.status == "pending" and one.volume_id != vm.volume_id(0)
        for one in stage.volumes.operations.values()
    ):
        await stage.world.changed.wait()
    end.set()
    await running
    assert len([one for one in stage.volumes.operations.values() if one.vm_id is None]) == before
    assert (await stage.check(job.id)).state is JobState.FAILED


@pytest.mark.rule("4-detached-everywhere")
async def test_a_device_that_stays_on_the_oma_is_not_detached_whatever_cloudstack_says(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk(place="oma", mode="failover")], test_vm_state=None))
    stage.volumes.kept_devices.add(vm.volume_id(0))
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    assert "but the OMA still shows its device" in str(_error(job)["detail"])
    assert stage.count("revertSnapshot") == 0


async def test_a_device_that_never_appears_is_no_success(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    stage.volumes.hidden_devices.add(vm.volume_id(0))
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    assert "the OMA shows no device for it" in str(_error(job)["detail"])
    assert _error(job)["phase"] == Phase.REATTACH.value


async def test_a_short_silence_of_cloudstack_between_two_actions_is_sat_out(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    job = await stage.submit(vm)
    cut = [0]

    def go_silent(event: object) -> None:
        if getattr(event, "type", None) is EventType.STEP_COMPLETED and not cut[0]:
            cut[0] = 1
            stage.cloud.weather.lose_requests += ["list_volumes", "list_vms", "list_snapshots"]

    stage.deps.bus.on_event(go_silent)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.COMPLETED, job.error


async def test_a_lasting_silence_after_the_first_change_parks_with_the_right_code(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    job = await stage.submit(vm)

    def go_silent(event: Event) -> None:
        if event.type is EventType.ACTION_EXECUTED and event.data["kind"] not in MARKER_KINDS:
            stage.cloud.weather.silent = True

    stage.deps.bus.on_event(go_silent)
    await stage.work()
    job = await stage.check(job.id)
    assert job.state is JobState.PARKED
    assert _error(job)["code"] == Code.CLOUDSTACK_TIMEOUT.value
    steps = {step.phase: step.status for step in await stage.deps.jobs.list_steps(job.id)}
    assert steps[Phase.SNAPSHOTS] is StepStatus.FAILED


async def test_the_volume_daemons_own_failure_is_told_in_its_words(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED))
    stage.volumes.broken[vm.volume_id(0)] = Upstream("Volume Daemon", "nbd_config", "can't write the NBD configuration")
    job = await stage.clean(vm)
    assert job.state is JobState.FAILED
    assert _error(job)["upstream"] == {
        "system": "Volume Daemon",
        "code": "nbd_config",
        "text": "can't write the NBD configuration",
    }


async def test_a_parked_vm_keeps_its_place(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "stopVirtualMachine", errorcode=530)
    vm = await stage.add(BrokenVm(disks=[Disk()]))
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    await _needs_resolution(stage, vm)
    assert len(await stage.rows(oma_issues)) == 1


async def test_a_long_poll_that_comes_back_at_once_is_not_asked_again_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a Volume Daemon whose machine's clock was set: the run waits a moment, and goes on when it has ended."""
    asked_at: list[float] = []
    wait_operation = stage.volumes.wait_operation

    async def hasty(operation_id: str, wait_s: float) -> RemoteOutcome:
        asked_at.append(stage.deps.clock.monotonic())
        if len(asked_at) <= HASTY_ANSWERS:
            return RemoteOutcome(RemoteStatus.PENDING)
        return await wait_operation(operation_id, wait_s)

    monkeypatch.setattr(stage.volumes, "wait_operation", hasty)
    job = await stage.clean(await stage.add(BrokenVm(disks=[Disk()], test_vm_state=STOPPED)))
    assert job.state is JobState.COMPLETED
    assert asked_at[HASTY_ANSWERS] - asked_at[0] >= HASTY_ANSWERS
