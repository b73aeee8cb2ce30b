"""What a run leaves behind in words: the verdict in its error, in the VM's records, and a log that says it once."""

from __future__ import annotations

from typing import Any

import pytest

from database.tables import log_events, vm_replication_contexts
from oma.domain.actions import ActionKind
from oma.domain.errors import OmaError, Refused
from oma.domain.jobs import CleanupRequest
from oma.domain.states import PHASES, JobState
from oma.domain.verdict import SOURCE_OFF
from oma.service.cleanup import plan_cleanup
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import Stage

OFF = ("source-vm-power-off", "virtio-driver-injection", "vm-creation", "volume-attachment")


async def summary_of(stage: Stage, vm: BrokenVm) -> dict[str, Any]:
    (context,) = await stage.rows(vm_replication_contexts, context_id=vm.context_id)
    found: dict[str, Any] = context["last_operation_summary"] or {}
    return found


async def test_a_park_after_proven_reverts_says_that_the_content_is_good(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "deleteSnapshot", errorcode=530, errortext="in use")
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped", steps=OFF))
    job = await stage.clean(vm)
    assert job.state is JobState.PARKED
    assert job.error is not None
    assert job.error["replica"] == "ready"
    assert job.error["next"].startswith(SOURCE_OFF)
    summary = await summary_of(stage, vm)
    told = {key: summary[key] for key in ("operation", "status", "job_id", "replica", "next")}
    assert told == {
        "operation": "failed-execution-cleanup",
        "status": "parked",
        "job_id": job.id,
        "replica": "ready",
        "next": job.error["next"],
    }
    assert "completed_at" not in summary


async def test_a_park_before_the_proof_says_unknown_and_names_the_disk(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, errortext="agent timed out", times=2)
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await stage.clean(vm)
    assert job.error is not None
    assert job.error["replica"] == "unknown"
    (revert,) = await stage.actions(job.id, ActionKind.REVERT_SNAPSHOT)
    assert str(revert.target.volume_name) in job.error["next"]
    assert str(job.error["detail"]).startswith(f"The revert of {revert.target.volume_name} failed.")


async def test_the_log_says_a_failure_once(stage: Stage) -> None:
    stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, errortext="agent timed out", times=2)
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await stage.clean(vm)
    lines = [row["message"] for row in await stage.rows(log_events, job_id=job.id)]
    assert sum("agent timed out" in line for line in lines) == stage.count("revertSnapshot") == 2
    assert any(line.startswith("The run is parked: a person has to settle 1 issue.") for line in lines)
    assert not any("did not come to a good end" in line or "revert_snapshot" in line for line in lines)


async def test_a_refused_run_keeps_when_the_last_clean_up_was_complete(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    done = await stage.clean(vm)
    assert done.state is JobState.COMPLETED
    before = await summary_of(stage, vm)
    await stage.sql(
        f"UPDATE vm_replication_contexts SET current_status='cleanup_required' WHERE context_id='{vm.context_id}'"
    )
    await stage.submit(vm)
    stage.world.change_volume(vm.volume_id(0), state="Snapshotting")
    await stage.work()
    after = await summary_of(stage, vm)
    assert (after["status"], after["completed_at"]) == ("failed", before["completed_at"])
    assert after["replica"] in ("ready", "unknown")
    assert after["next"]


async def test_a_partial_run_is_told_in_the_records_too(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    job = await stage.clean(vm, phases=PHASES[:2])
    assert job.result is not None
    assert (job.result["partial"], job.result["replica"]) == (True, "unknown")
    summary = await summary_of(stage, vm)
    assert (summary["status"], summary["replica"], summary["next"]) == ("partial", "unknown", job.result["next"])
    job = await stage.clean(vm, phases=PHASES[:3])
    assert job.result is not None
    assert job.result["replica"] == "ready"


async def test_a_refusal_says_what_is_known_of_the_replica_and_the_source_vm_first(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped", steps=OFF))
    stage.world.forget_snapshot(vm.snapshot_id(0))
    with pytest.raises(Refused) as raised:
        await plan_cleanup(stage.deps, CleanupRequest(vm.name))
    fields = raised.value.fields
    assert (fields["replica"], fields["source_powered_off"]) == ("unknown", True)
    assert fields["next"].startswith(SOURCE_OFF)
    assert not fields["refusals"][0]["next"].startswith(SOURCE_OFF)


async def test_a_vm_that_is_well_is_refused_as_ready(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
    await stage.clean(vm)
    with pytest.raises(Refused) as raised:
        await plan_cleanup(stage.deps, CleanupRequest(vm.name))
    assert (raised.value.code.value, raised.value.fields["replica"]) == ("nothing_to_clean", "ready")


async def test_who_meets_a_running_clean_up_is_told_of_the_source_vm_first(stage: Stage) -> None:
    vm = await stage.add(BrokenVm(test_vm_state="Stopped", steps=OFF))
    job = await stage.submit(vm)
    with pytest.raises(OmaError) as raised:
        await stage.submit(vm)
    assert raised.value.fields["next"] == f"{SOURCE_OFF} Follow it: oma jobs follow {job.id}"


async def test_past_runs_are_read_for_their_times(stage: Stage) -> None:
    assert await stage.deps.jobs.list_timed_actions() == []
    vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
    job = await stage.clean(vm)
    timed = await stage.deps.jobs.list_timed_actions()
    assert {action.id for action in timed} == {action.id for action in await stage.actions(job.id)}
    assert all(action.intent_at and action.ended_at and action.intent_at <= action.ended_at for action in timed)
