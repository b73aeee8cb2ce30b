"""`force`: its four passes, each after the ordinary way came to its end, each a tracked leak; and what it never passes."""

from __future__ import annotations

import pytest

from database.tables import failover_jobs, oma_audit, oma_leaks, ossea_volumes
from oma.domain.actions import ActionKind, Upstream
from oma.domain.errors import Code, OmaError
from oma.domain.jobs import Job
from oma.domain.states import ActionState, JobState
from oma.domain.words import Words
from oma.service.control import resume_job
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import OMA, BrokenVm, Disk
from tests.fakes.stage import Stage

pytestmark = pytest.mark.rule("8-force", "4-stopped")

REASON = "the storage team knows of it"
FORCE = Words(force=True, reason=REASON)
RESUME = Words(force=True, resume=True, reason=REASON)
HOST = "5f1c7c7e-52c4-4f0c-8f4e-0c6d8a8b1f01"


def break_for_ever(stage: Stage, command: str) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, command, times=None)


def mend(stage: Stage) -> None:
    stage.world.model.faults.clear()


async def parked(stage: Stage, vm: BrokenVm) -> Job:
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    return job


async def go_on(stage: Stage, job: Job, words: Words = RESUME) -> Job:
    await resume_job(stage.deps, job.id, words, actor="operator")
    await stage.work()
    return await stage.check(job.id)


async def leaks(stage: Stage) -> list[tuple[str, str]]:
    return [(row["kind"], row["reason"]) for row in await stage.rows(oma_leaks)]


async def test_a_snapshot_that_wont_be_deleted_is_left_and_the_run_goes_on(stage: Stage) -> None:
    vm = await stage.add()
    break_for_ever(stage, "deleteSnapshot")
    job = await parked(stage, vm)

    job = await go_on(stage, job)

    assert job.state is JobState.COMPLETED
    assert await leaks(stage) == [("snapshot_kept", REASON)] * 2
    assert all(stage.world.snapshot_is_listed(one) for one in vm.snapshot_ids)
    assert {row["snapshot_status"] for row in await stage.rows(ossea_volumes)} == {"none"}
    assert job.result is not None
    assert [leak["kind"] for leak in job.result["leaks"]] == ["snapshot_kept"] * 2
    assert all(one in job.result["next"] for one in vm.snapshot_ids)
    assert job.result["replica"] == "ready"
    assert stage.count("revertSnapshot") == 2
    passed = await stage.actions(job.id, ActionKind.DELETE_SNAPSHOT)
    assert {(one.state, one.attempt) for one in passed} == {(ActionState.SKIPPED, 2)}
    assert {row["status"] for row in await stage.rows(failover_jobs)} == {"failed"}


async def test_what_can_be_done_after_all_is_done_and_leaves_nothing(stage: Stage) -> None:
    vm = await stage.add()
    break_for_ever(stage, "deleteSnapshot")
    job = await parked(stage, vm)
    mend(stage)
    job = await go_on(stage, job)
    assert job.state is JobState.COMPLETED
    assert await leaks(stage) == []
    assert not any(stage.world.snapshot_is_listed(one) for one in vm.snapshot_ids)
    assert job.result is not None
    assert "leaks" not in job.result


async def test_a_test_vm_that_wont_be_destroyed_is_left(stage: Stage) -> None:
    vm = await stage.add()
    break_for_ever(stage, "destroyVirtualMachine")
    job = await go_on(stage, await parked(stage, vm))
    assert job.state is JobState.COMPLETED
    assert await leaks(stage) == [("test_vm_kept", REASON)]
    assert stage.world.vm_state(vm.test_vm_id) == "Stopped"
    assert job.result is not None
    assert vm.test_vm_id in job.result["next"]


async def test_an_export_that_wont_come_back_parks_and_is_left_by_force(stage: Stage) -> None:
    vm = await stage.add()
    fault = Upstream("Volume Daemon", "nbd_reload_failed", "nbd-server did not take the export")
    stage.volumes.unexported = {vm.volume_id(0): fault}
    job = await parked(stage, vm)
    (issue,) = await stage.open_issues(job.id)
    assert "export" in issue["title"]

    job = await go_on(stage, job)

    assert job.state is JobState.COMPLETED
    assert await leaks(stage) == [("export_missing", REASON)]
    assert stage.world.holder_of(vm.volume_id(0)) == stage.world.oma_vm_id


async def test_resumed_without_force_the_export_is_asked_for_again(stage: Stage) -> None:
    vm = await stage.add()
    fault = Upstream("Volume Daemon", "nbd_export_missing", "no space")
    stage.volumes.unexported = {vm.volume_id(0): fault}
    job = await parked(stage, vm)
    stage.volumes.unexported = {}
    await stage.sql("UPDATE oma_issues SET state = 'resolved', open_cause = NULL")
    job = await go_on(stage, job, Words(resume=True))
    assert job.state is JobState.COMPLETED
    assert await leaks(stage) == []


async def test_a_vm_that_wont_stop_is_stopped_by_force_only_after_the_unforced_stop_ended(stage: Stage) -> None:
    vm = await stage.add()
    stage.world.add_fault(FaultKind.JOB_FAIL, "stopVirtualMachine", times=2)
    job = await parked(stage, vm)
    began = stage.clock.monotonic()

    job = await go_on(stage, job)

    assert job.state is JobState.COMPLETED
    stops = stage.world.accepted("stopVirtualMachine")
    assert [bool(one.params.get("forced")) for one in stops] == [False, False, True]
    assert len({one.request_id for one in stops}) == 3
    first_revert = min(one.at for one in stage.world.accepted("revertSnapshot"))
    assert first_revert - stops[-1].at >= stage.tools.figures.stopped_again_s
    assert stage.clock.monotonic() - began >= stage.tools.figures.stopped_again_s
    assert await leaks(stage) == [("forced_stop", REASON)]
    assert "find_host_state" in stage.cloud.weather.asked


async def test_without_force_no_stop_is_ever_forced(stage: Stage) -> None:
    vm = await stage.add()
    break_for_ever(stage, "stopVirtualMachine")
    job = await parked(stage, vm)
    await stage.sql("UPDATE oma_issues SET state = 'resolved', open_cause = NULL")
    job = await go_on(stage, job, Words(resume=True))
    assert job.state is JobState.PARKED
    assert not any(one.params.get("forced") for one in stage.world.orders)
    assert stage.count("revertSnapshot") == 0


async def test_a_host_that_is_not_up_keeps_the_revert_back(stage: Stage) -> None:
    vm = await stage.add()
    stage.world.add_fault(FaultKind.JOB_FAIL, "stopVirtualMachine", times=2)
    job = await parked(stage, vm)
    stage.cloud.host_states[HOST] = "Down"
    job = await go_on(stage, job)
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert "Down" in job.error["detail"]
    assert stage.count("revertSnapshot") == 0
    again = await stage.submit(vm)
    await stage.work()
    again = await stage.job(again.id)
    assert again.state is JobState.FAILED
    assert again.error is not None
    assert "Down" in again.error["detail"], "the next run knows that the stop was forced"
    assert stage.count("revertSnapshot") == 0


async def test_where_hosts_may_not_be_listed_the_persons_word_counts_and_the_log_says_so(stage: Stage) -> None:
    vm = await stage.add()
    stage.world.add_fault(FaultKind.JOB_FAIL, "stopVirtualMachine", times=2)
    job = await parked(stage, vm)
    stage.cloud.may_see_hosts = False
    job = await go_on(stage, job)
    assert job.state is JobState.COMPLETED
    lines = (await stage.deps.jobs.list_log(job.id, 500, None)).items
    assert any(REASON in line.message and "host" in line.message for line in lines)


async def test_a_vm_that_runs_again_meanwhile_is_not_reverted_under(stage: Stage) -> None:
    vm = await stage.add()
    stage.world.add_fault(FaultKind.JOB_FAIL, "stopVirtualMachine", times=2)
    job = await parked(stage, vm)
    asleep = stage.clock.sleep

    async def start_meanwhile(seconds: float) -> None:
        if seconds == stage.tools.figures.stopped_again_s:
            stage.world.change_vm(vm.test_vm_id, state="Running")
        await asleep(seconds)

    stage.clock.sleep = start_meanwhile  # type: ignore[method-assign]
    job = await go_on(stage, job)
    assert job.state is JobState.FAILED
    assert stage.count("revertSnapshot") == 0


async def test_a_run_that_had_force_from_its_beginning_passes_at_once(stage: Stage) -> None:
    vm = await stage.add()
    await fail_once(stage, vm)
    break_for_ever(stage, "deleteSnapshot")
    job = await stage.clean(vm, words=FORCE)
    assert job.state is JobState.COMPLETED
    assert await leaks(stage) == [("snapshot_kept", REASON)] * 2
    assert {one.attempt for one in await stage.actions(job.id, ActionKind.DELETE_SNAPSHOT)} == {1}


async def test_force_passes_no_failed_revert(stage: Stage) -> None:
    vm = await stage.add()
    await fail_once(stage, vm)
    break_for_ever(stage, "revertSnapshot")
    job = await stage.clean(vm, words=FORCE)
    assert job.state is JobState.PARKED
    assert stage.count("deleteSnapshot") == 0
    with pytest.raises(OmaError) as raised:
        await resume_job(stage.deps, job.id, RESUME, actor="operator")
    assert raised.value.code is Code.NEEDS_RESOLUTION


async def test_force_passes_no_device_that_did_not_come_back(stage: Stage) -> None:
    vm = await stage.add()
    await fail_once(stage, vm)
    stage.volumes.hidden_devices.add(vm.volume_id(1))
    job = await stage.clean(vm, words=FORCE)
    assert job.state is JobState.PARKED
    assert await leaks(stage) == []


async def test_force_passes_no_silence(stage: Stage) -> None:
    """Whether the snapshot was deleted can't be told: that is no failure that force knows."""
    vm = await stage.add()
    await fail_once(stage, vm)
    stage.cloud.weather.lose_requests += ["deleteSnapshot"] * 6
    job = await stage.clean(vm, words=FORCE)
    assert job.state is JobState.PARKED
    assert await leaks(stage) == []


async def test_force_without_a_failed_run_is_refused_and_only_audited(stage: Stage) -> None:
    vm = await stage.add()
    status = await stage.status(vm)
    with pytest.raises(OmaError) as raised:
        await stage.submit(vm, words=FORCE)
    assert (raised.value.code, raised.value.fields["field"]) == (Code.INVALID_REQUEST, "force")
    assert await stage.status(vm) == status
    assert stage.world.orders == []
    (entry,) = await stage.rows(oma_audit)
    assert (entry["action"], entry["decision"], entry["reason"]) == ("refused", "invalid_request", REASON)


async def test_a_leftover_is_known_after_a_restart(stage: Stage) -> None:
    """What was left behind stands in the journal: a daemon that takes the run up names it at the end."""
    vm = await stage.add(BrokenVm(disks=[Disk(OMA, mode="oma"), Disk()]))
    break_for_ever(stage, "deleteSnapshot")
    stage.world.add_fault(FaultKind.JOB_FAIL, "destroyVirtualMachine", times=1)
    job = await parked(stage, vm)
    job = await go_on(stage, job)
    if job.state is JobState.PARKED:
        job = await go_on(stage, job)
    assert job.state is JobState.COMPLETED
    assert job.result is not None
    assert {leak["kind"] for leak in job.result["leaks"]} >= {"snapshot_kept"}
    assert len(await leaks(stage)) == len(job.result["leaks"])


async def fail_once(stage: Stage, vm: BrokenVm) -> None:
    """An earlier run of this VM that failed."""
    await stage.sql(
        "INSERT INTO oma_jobs (id, context_id, vm_name, operation, state, request, plan, plan_digest, correlation_id, "
        "requested_by, lease_fence, created_at, ended_at, updated_at) VALUES "
        f"('earlier', '{vm.context_id}', '{vm.name}', 'failed-execution-cleanup', 'failed', '{{}}', '{{}}', 'd', 'c', "
        "'o', 0, '2020-01-01 00:00:00.000000', "
        "'2020-01-01 00:00:00.000000', '2020-01-01 00:00:00.000000')"
    )
