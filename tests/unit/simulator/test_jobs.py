"""Queues, times, customjobid, faults, ends and restarts of asynchronous jobs."""

from __future__ import annotations

import pytest

from ossea.simulator.model import DeviceAppeared, Model, RevertStarted
from tests.unit.simulator.cloud import OMA, S1, V1, V2, VM, Cloud

MINE = "c0ffee00-0000-4000-8000-000000000001"


def statuses(cloud: Cloud, *jobs: str) -> list[int]:
    return [cloud.job(job)["jobstatus"] for job in jobs]


def test_one_queue_per_vm() -> None:
    cloud = Cloud()
    first = cloud.start("attachVolume", id=V1, virtualmachineid=VM)
    second = cloud.start("attachVolume", id=V2, virtualmachineid=VM)
    cloud.pass_time(3)
    assert statuses(cloud, first, second) == [1, 0]
    cloud.pass_time(2.9)
    assert statuses(cloud, first, second) == [1, 0]
    cloud.pass_time(0.1)
    assert statuses(cloud, first, second) == [1, 1]


def test_queues_of_two_vms_do_not_wait_for_each_other() -> None:
    cloud = Cloud()
    jobs = [cloud.start("attachVolume", id=v, virtualmachineid=vm) for v, vm in ((V1, VM), (V2, OMA))]
    cloud.pass_time(3)
    assert statuses(cloud, *jobs) == [1, 1]


def test_the_queue_can_be_switched_off() -> None:
    cloud = Cloud(queue_per_vm=False)
    jobs = [cloud.start("attachVolume", id=volume, virtualmachineid=VM) for volume in (V1, V2)]
    cloud.pass_time(3)
    assert statuses(cloud, *jobs) == [1, 1]


def test_durations_are_settings() -> None:
    cloud = Cloud(durations={"attachVolume": 30}, time_scale=0.1)
    job = cloud.start("attachVolume", id=V1, virtualmachineid=VM)
    assert cloud.job(job)["jobstatus"] == 0
    cloud.pass_time(3)
    assert cloud.job(job)["jobstatus"] == 1


def test_a_long_queue_of_jobs_that_fail_at_once_is_worked_off() -> None:
    cloud = Cloud()
    cloud.put(V1, VM)
    ids = cloud.model.seed(cloud.now, volumes=[{"name": f"v{n}", "size_bytes": 512} for n in range(600)])["volumes"]
    cloud.start("detachVolume", id=V1)
    jobs = [cloud.start("attachVolume", id=volume, virtualmachineid=VM) for volume in ids]
    for volume in ids:
        cloud.set_volume(volume, state="Migrating")
    cloud.pass_time(3)
    assert set(statuses(cloud, *jobs)) == {2}


def test_job_row_as_4_11_shows_it() -> None:
    cloud = Cloud()
    job = cloud.run("attachVolume", id=V1, virtualmachineid=VM)
    assert job["cmd"].endswith("AttachVolumeCmdByAdmin")
    assert (job["jobinstancetype"], job["jobinstanceid"]) == ("Volume", V1)
    assert (job["jobprocstatus"], job["jobresultcode"], job["jobresulttype"]) == (0, 0, "object")
    refused = cloud.run("attachVolume", id=V1, virtualmachineid=VM)
    assert refused["jobresultcode"] == 530
    assert refused["jobresult"]["errorcode"] == 431


def test_custom_job_id_is_the_jobs_id_and_unique() -> None:
    cloud = Cloud()
    assert cloud.start("attachVolume", id=V1, virtualmachineid=VM, customjobid=MINE) == MINE
    error = cloud.error("attachVolume", id=V2, virtualmachineid=VM, customjobid=MINE)
    assert error.errorcode == 431
    assert error.text == f"UUID: {MINE} already exists so can't create with custom id"
    cloud.pass_time(60)
    assert "virtualmachineid" not in cloud.volume(V2)
    cloud.model.settings = cloud.model.settings.patched({"custom_job_id_conflict_code": 530})
    assert cloud.error("detachVolume", id=V1, customjobid=MINE).errorcode == 530


@pytest.mark.parametrize("value", [MINE.upper(), "not-a-uuid", MINE[:-1]])
def test_custom_job_id_has_a_format(value: str) -> None:
    error = Cloud().error("detachVolume", id=V1, customjobid=value)
    assert (error.errorcode, error.text) == (431, f"UUID: {value} format is incorrect")


def test_an_old_server_ignores_custom_job_id() -> None:
    cloud = Cloud(custom_job_id=False)
    assert cloud.start("detachVolume", id=V1, customjobid=MINE) != MINE


def test_a_create_command_with_a_used_job_id_leaves_an_orphan() -> None:
    cloud = Cloud()
    cloud.start("detachVolume", id=V1, customjobid=MINE)
    cloud.error("createSnapshot", volumeid=V1, name="again", customjobid=MINE)
    assert [s["state"] for s in cloud.call("listSnapshots", name="again")["snapshot"]] == ["Allocated"]


def test_rows_live_a_day_from_creation() -> None:
    cloud = Cloud()
    cloud.run("detachVolume", id=V1, customjobid=MINE)
    cloud.pass_time(86_399)
    assert cloud.job(MINE)["jobstatus"] == 2
    cloud.pass_time(2)
    error = cloud.error("queryAsyncJobResult", jobid=MINE)
    assert error.errorcode == 431
    assert "entity does not exist" in error.text
    assert cloud.start("detachVolume", id=V1, customjobid=MINE) == MINE


def test_list_async_jobs_oldest_first_and_pending_only_on_newer_servers() -> None:
    cloud = Cloud()
    old = cloud.run("detachVolume", id=V1)["jobid"]
    new = cloud.start("attachVolume", id=V1, virtualmachineid=VM)
    assert [job["jobid"] for job in cloud.call("listAsyncJobs")["asyncjobs"]] == [old, new]
    cloud.model.settings = cloud.model.settings.patched({"list_pending_jobs_only": True})
    assert [job["jobid"] for job in cloud.call("listAsyncJobs")["asyncjobs"]] == [new]


def test_a_fault_hits_only_the_calls_it_matches_and_as_often_as_it_says() -> None:
    cloud = Cloud()
    cloud.fault("attachVolume", "job_fail", match={"id": V2}, times=1, errortext="no")
    cloud.put(V1, VM)
    assert cloud.refusal("attachVolume", id=V2, virtualmachineid=VM) == (530, "no")
    assert cloud.volume(V2)["state"] == "Ready"
    cloud.put(V2, VM)


def test_sync_error() -> None:
    cloud = Cloud()
    cloud.fault("attachVolume", "sync_error", errorcode=534, cserrorcode=4285, errortext="agent is away")
    error = cloud.error("attachVolume", id=V1, virtualmachineid=VM)
    assert (error.errorcode, error.cserrorcode, error.text) == (534, 4285, "agent is away")


def test_job_fail_applied_at_once_and_later() -> None:
    cloud = Cloud()
    cloud.fault("attachVolume", "job_fail_applied", errortext="timed out")
    assert cloud.refusal("attachVolume", id=V1, virtualmachineid=VM) == (530, "timed out")
    assert cloud.volume()["virtualmachineid"] == VM
    cloud.fault("attachVolume", "job_fail_applied", delay_s=100)
    cloud.refusal("attachVolume", id=V2, virtualmachineid=VM)
    assert cloud.volume(V2)["state"] == "Attaching"
    assert "jobid" not in cloud.volume(V2)
    cloud.pass_time(100)
    assert cloud.volume(V2)["virtualmachineid"] == VM


def test_a_stuck_job_stays_pending_and_blocks_its_queue() -> None:
    cloud = Cloud()
    cloud.fault("attachVolume", "job_stuck")
    stuck = cloud.start("attachVolume", id=V1, virtualmachineid=VM)
    waiting = cloud.start("attachVolume", id=V2, virtualmachineid=VM)
    cloud.pass_time(100_000)
    assert statuses(cloud, stuck, waiting) == [0, 0]
    assert cloud.model.next_due() is None


def test_a_detach_that_cloudstack_believes_and_the_guest_does_not() -> None:
    cloud = Cloud()
    cloud.put(V1, OMA)
    cloud.effects.clear()
    cloud.fault("detachVolume", "job_no_effect")
    cloud.done("detachVolume", id=V1)
    assert "virtualmachineid" not in cloud.volume()
    assert cloud.effects == []


def test_a_revert_that_succeeds_without_effect() -> None:
    cloud = Cloud()
    cloud.fault("revertSnapshot", "job_no_effect")
    cloud.done("revertSnapshot", id=S1)
    assert [effect.fraction for effect in cloud.effects if isinstance(effect, RevertStarted)] == [0.0]
    assert len(cloud.effects) == 1


def test_a_slow_job_ends_later() -> None:
    cloud = Cloud()
    cloud.fault("attachVolume", "job_stuck", delay_s=50)
    job = cloud.start("attachVolume", id=V1, virtualmachineid=VM)
    cloud.pass_time(52.9)
    assert cloud.job(job)["jobstatus"] == 0
    cloud.pass_time(0.1)
    assert cloud.job(job)["jobstatus"] == 1


def test_the_60_minute_cancel_marks_failed_while_the_hypervisor_works_on() -> None:
    cloud = Cloud(job_cancel_s=2)
    running = cloud.start("attachVolume", id=V1, virtualmachineid=VM)
    waiting = cloud.start("attachVolume", id=V2, virtualmachineid=VM)
    cloud.pass_time(2)
    assert statuses(cloud, running, waiting) == [2, 2]
    assert "blocking others" in cloud.job(running)["jobresult"]["errortext"]
    cloud.pass_time(1)
    assert cloud.volume(V1)["virtualmachineid"] == VM
    assert "virtualmachineid" not in cloud.volume(V2)


def test_a_failed_job_may_have_no_result() -> None:
    cloud = Cloud()
    cloud.fault("detachVolume", "job_fail", no_result=True)
    cloud.put(V1, VM)
    job = cloud.run("detachVolume", id=V1)
    assert job["jobstatus"] == 2
    assert "jobresult" not in job


def test_a_restart_fails_jobs_while_the_hypervisor_works_on() -> None:
    cloud = Cloud()
    revert = cloud.start("revertSnapshot", id=S1)
    attach = cloud.start("attachVolume", id=V2, virtualmachineid=VM)
    cloud.model.restart(cloud.now, "fail")
    assert statuses(cloud, revert, attach) == [2, 2]
    assert "jobresult" not in cloud.job(revert)
    cloud.pass_time(60)
    assert cloud.volume(V1)["state"] == "RevertSnapshotting"
    assert any(isinstance(effect, DeviceAppeared) for effect in cloud.effects)
    assert "virtualmachineid" not in cloud.volume(V2)


def test_a_restart_of_the_4_11_era_loses_volumes_of_attach_jobs() -> None:
    cloud = Cloud()
    cloud.start("attachVolume", id=V2, virtualmachineid=VM)
    cloud.model.restart(cloud.now, "fail_and_lose_volumes")
    assert cloud.call("listVolumes", id=V2) == {}


def test_stored_rows_make_the_same_cloud_and_jobs_go_on() -> None:
    cloud = Cloud()
    cloud.put(V1, VM)
    jobs = [cloud.start("detachVolume", id=V1), cloud.start("attachVolume", id=V2, virtualmachineid=VM)]
    jobs.append(
        cloud.start(
            "revertSnapshot", id=cloud.model.seed(cloud.now, snapshots=[{"volume_id": V2, "name": "s"}])["snapshots"][0]
        )
    )
    cloud.pass_time(1)
    rows = cloud.model.dump()
    cloud.model = Model(cloud.model.settings, seed=8)
    cloud.model.load(rows, cloud.now)
    assert statuses(cloud, *jobs) == [0, 0, 0]
    assert [type(effect) for effect in cloud.model.unfinished()] == [RevertStarted]
    cloud.pass_time(2)
    # The queued attach finds its volume in the middle of a revert when its turn comes.
    assert statuses(cloud, *jobs) == [1, 2, 0]
    cloud.pass_time(60)
    assert statuses(cloud, *jobs) == [1, 2, 1]


def test_changes_are_the_rows_that_changed() -> None:
    cloud = Cloud()
    cloud.model.take_changes()
    cloud.start("detachVolume", id=V1)
    assert {table for table, _, _ in cloud.model.take_changes()} == {"jobs", "events"}
    assert cloud.model.take_changes() == []


def test_a_driven_job_does_not_end_before_its_effects_are_released() -> None:
    cloud = Cloud(driven=True)
    job = cloud.start("revertSnapshot", id=S1)
    cloud.pass_time(5)
    assert cloud.job(job)["jobstatus"] == 0
    cloud.model.release(job, cloud.now)
    assert cloud.job(job)["jobstatus"] == 0
    cloud.model.release(job, cloud.now)
    assert cloud.job(job)["jobstatus"] == 1


def test_an_effect_that_failed_fails_the_job() -> None:
    cloud = Cloud(driven=True)
    job = cloud.start("attachVolume", id=V1, virtualmachineid=VM)
    cloud.pass_time(3)
    cloud.model.release(job, cloud.now, "no loop device")
    assert cloud.job(job)["jobresult"] == {"errorcode": 530, "errortext": "no loop device"}
    assert cloud.volume()["state"] == "Ready"


def test_the_same_calls_give_the_same_ids() -> None:
    assert Cloud().start("detachVolume", id=V1) == Cloud().start("detachVolume", id=V1)
