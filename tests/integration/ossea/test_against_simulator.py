"""The client and the `Cloud` adapter against the simulator: the protocol, jobs, lost calls, limits, restarts."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from oma.adapters.cloudstack import CloudStackCloud
from oma.ports import RemoteStatus
from ossea.client import CloudStack
from ossea.credentials import Endpoint
from ossea.errors import CloudStackError, ErrorKind
from ossea.models import JobStatus
from ossea.simulator.admin_client import AdminClient
from tests.integration.ossea.conftest import KEY, OMA, SECRET, SimulatorProcess

MIB = 1024**2


def new_id() -> str:
    return str(uuid.uuid4())


async def seed_test_vm(admin: AdminClient, disks: int = 1, state: str = "Stopped") -> tuple[str, list[str]]:
    """A VM with data disks of 1 MiB; returns their ids."""
    vm_id, volume_ids = new_id(), [new_id() for _ in range(disks)]
    await admin.seed(
        vms=[{"id": vm_id, "name": f"vm-{vm_id[:8]}", "state": state}],
        volumes=[
            {"id": one, "name": f"disk-{one[:8]}", "size_bytes": MIB, "vm_id": vm_id, "device_id": slot, "fill": "a"}
            for slot, one in enumerate(volume_ids, start=4)
        ],
    )
    return vm_id, volume_ids


@pytest.mark.parametrize("method", ["get", "post"])
async def test_a_volume_goes_from_one_vm_to_another(simulator: SimulatorProcess, admin: AdminClient, method):
    vm_id, (volume_id,) = await seed_test_vm(admin)
    async with CloudStack(Endpoint(simulator.url, KEY, SECRET, method), poll_min_s=0.01) as client:
        for submit in (client.detach_volume(volume_id), client.attach_volume(volume_id, OMA, job_id=new_id())):
            assert (await client.wait_job(await submit)).status is JobStatus.SUCCEEDED
        (volume,) = await client.list_volumes(ids=[volume_id])
        assert (volume.vm_id, volume.state, volume.size_bytes, volume.pending_job_id) == (OMA, "Ready", MIB, None)
        assert [one.id for one in await client.list_volumes(vm_id=OMA)] == [volume_id]
        assert await client.list_volumes(vm_id=vm_id) == []


async def test_a_revert_puts_the_bytes_back_and_the_snapshot_goes(client: CloudStack, admin: AdminClient):
    _, (volume_id,) = await seed_test_vm(admin)
    before = await admin.volume_hash(volume_id)
    job_id, snapshot_id = await client.create_snapshot(volume_id, name="multi-test-failover-1", job_id=new_id())
    assert (await client.wait_job(job_id)).status is JobStatus.SUCCEEDED
    await admin.write(volume_id, fill="b")
    cloud = CloudStackCloud(client)
    (snapshot,) = await cloud.list_snapshots([snapshot_id])
    assert (snapshot.volume_id, snapshot.state, snapshot.size_bytes) == (volume_id, "BackedUp", MIB)
    assert snapshot.created is not None
    request_id = new_id()
    assert await cloud.submit_revert(snapshot_id, request_id=request_id, expires_at=None) == request_id
    assert (await cloud.wait_job(request_id)).status is RemoteStatus.SUCCEEDED
    assert await admin.volume_hash(volume_id) == before
    deleted = await cloud.submit_delete_snapshot(snapshot_id, request_id=new_id(), expires_at=None)
    assert (await cloud.wait_job(deleted)).status is RemoteStatus.SUCCEEDED
    assert await cloud.list_snapshots([snapshot_id]) == []


async def test_a_precondition_that_fails_is_a_refusal_in_cloudstacks_words(client: CloudStack, admin: AdminClient):
    _, (volume_id,) = await seed_test_vm(admin)
    await client.wait_job(await client.detach_volume(volume_id))
    job = await client.wait_job(await client.detach_volume(volume_id))
    assert job.refused
    assert job.errortext == "The specified volume is not attached to a VM."
    with pytest.raises(CloudStackError) as caught:
        await client.detach_volume(new_id())
    assert caught.value.kind is ErrorKind.REFUSED
    assert caught.value.entity_unknown


async def test_a_job_that_fails_without_a_result_is_followed_to_its_end(client: CloudStack, admin: AdminClient):
    _, (volume_id,) = await seed_test_vm(admin)
    await admin.add_fault("detachVolume", "job_fail", no_result=True)
    outcome = await CloudStackCloud(client).wait_job(await client.detach_volume(volume_id))
    assert outcome.status is RemoteStatus.FAILED


async def test_a_call_whose_answer_was_lost_is_found_and_happens_once(client: CloudStack, admin: AdminClient):
    vm_id, _ = await seed_test_vm(admin, state="Running")
    request_id = new_id()
    await admin.add_fault("stopVirtualMachine", "lost_answer")
    with pytest.raises(CloudStackError) as caught:
        await client.stop_vm(vm_id, job_id=request_id)
    assert caught.value.kind is ErrorKind.NO_ANSWER
    assert (await client.query_job(request_id)).status is not JobStatus.ABSENT
    assert await client.stop_vm(vm_id, job_id=request_id) == request_id
    assert (await client.wait_job(request_id)).status is JobStatus.SUCCEEDED
    assert len((await admin.state())["jobs"]) == 1


async def test_a_call_that_never_arrived_is_absent_and_may_be_sent_again(client: CloudStack, admin: AdminClient):
    _, (volume_id,) = await seed_test_vm(admin)
    request_id = new_id()
    await admin.add_fault("detachVolume", "lost_request")
    with pytest.raises(CloudStackError):
        await client.detach_volume(volume_id, job_id=request_id)
    assert (await CloudStackCloud(client).query_job(request_id)).status is RemoteStatus.ABSENT
    await client.detach_volume(volume_id, job_id=request_id)
    assert (await client.wait_job(request_id)).status is JobStatus.SUCCEEDED


@pytest.mark.parametrize("kind", ["non_json", "http_status"])
async def test_an_answer_that_is_none_leaves_the_outcome_unknown(client: CloudStack, admin: AdminClient, kind):
    _, (volume_id,) = await seed_test_vm(admin)
    await admin.add_fault("detachVolume", kind, errorcode=502)
    with pytest.raises(CloudStackError) as caught:
        await client.detach_volume(volume_id, job_id=new_id())
    assert caught.value.kind is ErrorKind.BROKEN_ANSWER


@pytest.mark.parametrize("conflict", [431, 530])
async def test_an_id_that_was_burnt_refuses_the_late_call(client: CloudStack, admin: AdminClient, conflict):
    await admin.put_settings(custom_job_id_conflict_code=conflict)
    _, (volume_id,) = await seed_test_vm(admin)
    request_id = new_id()
    await client.create_tags([OMA], "UserVm", {"oma-epoch": "here:1"}, job_id=request_id)
    with pytest.raises(CloudStackError) as caught:
        await client.detach_volume(volume_id, job_id=request_id)
    assert caught.value.kind is ErrorKind.REFUSED
    assert [one.id for one in await client.list_volumes(ids=[volume_id]) if one.vm_id] == [volume_id]


@pytest.mark.parametrize("honours", [True, False])
async def test_whether_ids_of_ours_are_honoured_is_found_out_harmlessly(
    client: CloudStack, admin: AdminClient, honours
):
    await admin.put_settings(custom_job_id=honours)
    await seed_test_vm(admin)
    before = await admin.state()
    assert await client.honours_custom_job_id() is honours
    after = await admin.state()
    for kind in ("vms", "volumes", "snapshots", "tags"):
        assert after[kind] == before[kind]


async def test_without_ids_of_ours_an_unknown_id_proves_nothing(client: CloudStack, admin: AdminClient):
    await admin.put_settings(custom_job_id=False)
    outcome = await CloudStackCloud(client).query_job(new_id())
    assert outcome.status is RemoteStatus.UNTRACEABLE


async def test_tags_with_names_of_the_field(client: CloudStack, admin: AdminClient):
    _, volume_ids = await seed_test_vm(admin, disks=3)
    marker = {"oma-cleanup": "сервер-1/db prod #7 & PhilB Test machine (100 %)"}
    job = await client.wait_job(await client.create_tags(volume_ids, "Volume", marker))
    assert job.status is JobStatus.SUCCEEDED
    found = await client.list_tags(resource_type="Volume", key="oma-cleanup")
    assert {tag.resource_id: tag.value for tag in found} == dict.fromkeys(volume_ids, marker["oma-cleanup"])
    again = await client.wait_job(await client.create_tags(volume_ids[:1], "Volume", marker))
    assert (again.status, again.refused) == (JobStatus.FAILED, False)
    deleted = await client.wait_job(await client.delete_tags(volume_ids, "Volume", {"oma-cleanup": None}))
    assert deleted.status is JobStatus.SUCCEEDED
    assert await client.list_tags(key="oma-cleanup") == []


async def test_a_lowered_page_size_hides_nothing(client: CloudStack, admin: AdminClient):
    await admin.put_settings(default_page_size=7)
    _, volume_ids = await seed_test_vm(admin, disks=30)
    assert {one.id for one in await client.list_volumes()} == set(volume_ids)
    assert {one.id for one in await client.list_volumes(ids=[*volume_ids, new_id()])} == set(volume_ids)


async def test_a_throttling_server_is_served_to_the_end(client: CloudStack, admin: AdminClient):
    _, volume_ids = await seed_test_vm(admin)
    await admin.put_settings(throttle_per_s=20)
    found = await asyncio.gather(*(client.list_volumes(ids=volume_ids) for _ in range(50)))
    assert all(len(volumes) == 1 for volumes in found)


async def test_a_server_with_another_clock(client: CloudStack, admin: AdminClient):
    await admin.put_settings(clock_offset_s=-7200)
    vm_id, _ = await seed_test_vm(admin, state="Running")
    assert (await client.wait_job(await client.stop_vm(vm_id))).status is JobStatus.SUCCEEDED


async def test_wrong_credentials_are_said(simulator: SimulatorProcess):
    async with CloudStack(Endpoint(simulator.url, KEY, "wrong")) as client:
        for call in (client.list_zones(), client.detach_volume(new_id())):
            with pytest.raises(CloudStackError) as caught:
                await call
            assert caught.value.kind is ErrorKind.UNAUTHORIZED


@pytest.mark.parametrize("pending_only", [True, False])
async def test_many_jobs_are_swept_together(client: CloudStack, admin: AdminClient, pending_only):
    await admin.put_settings(list_pending_jobs_only=pending_only, durations={"detachVolume": 10.0})
    volume_ids = [one for _ in range(30) for one in (await seed_test_vm(admin))[1]]
    jobs = await asyncio.gather(*(client.detach_volume(one, job_id=new_id()) for one in volume_ids))
    ended = await asyncio.gather(*(client.wait_job(job_id) for job_id in jobs))
    assert {job.status for job in ended} == {JobStatus.SUCCEEDED}
    commands = [call["command"] for call in await admin.calls()]
    assert commands.count("listAsyncJobs") >= 1
    assert commands.count("queryAsyncJobResult") <= 2 * len(jobs)


async def test_a_job_is_followed_through_a_crash_of_the_server(
    simulator: SimulatorProcess, client: CloudStack, admin: AdminClient
):
    _, (volume_id,) = await seed_test_vm(admin)
    await admin.put_settings(durations={"detachVolume": 20.0})
    job_id = await client.detach_volume(volume_id, job_id=new_id())
    waiting = asyncio.create_task(client.wait_job(job_id))
    await simulator.kill()
    assert (await client.wait_job(job_id, 0.1)).status is JobStatus.PENDING
    await simulator.start()
    assert (await waiting).status is JobStatus.SUCCEEDED
    assert [one.vm_id for one in await client.list_volumes(ids=[volume_id])] == [None]


async def test_what_the_analysis_asks(client: CloudStack, admin: AdminClient):
    cloud = CloudStackCloud(client)
    vm_id, volume_ids = await seed_test_vm(admin, disks=2)
    free_vm, _ = await seed_test_vm(admin)
    await admin.add_vm_snapshot(vm_id)
    assert await cloud.list_vm_snapshot_holders([vm_id, free_vm, new_id()]) == [vm_id]
    assert {vm.id: vm.state for vm in await cloud.list_vms([vm_id, OMA, new_id()])} == {
        vm_id: "Stopped",
        OMA: "Running",
    }
    await admin.delete_volume(volume_ids[0])
    assert [one.id for one in await cloud.list_volumes(volume_ids)] == volume_ids[1:]
    assert "answers" in await cloud.check()


async def test_zones_and_offerings_and_a_new_volume(client: CloudStack, admin: AdminClient):
    zones, offerings = await client.list_zones(), await client.list_disk_offerings()
    custom = next(one for one in offerings if one.is_customized)
    job_id, volume_id = await client.create_volume(
        "new disk", disk_offering_id=custom.id, zone_id=zones[0].id, size_gib=1, job_id=new_id()
    )
    assert (await client.wait_job(job_id)).status is JobStatus.SUCCEEDED
    (volume,) = await client.list_volumes(ids=[volume_id])
    assert volume.size_bytes == 1024 * MIB
    await client.delete_volume(volume_id)
    assert await client.list_volumes(ids=[volume_id]) == []


async def test_a_destroyed_vm_can_be_recovered(client: CloudStack, admin: AdminClient):
    vm_id, _ = await seed_test_vm(admin)
    assert (await client.wait_job(await client.destroy_vm(vm_id))).status is JobStatus.SUCCEEDED
    assert [vm.state for vm in await client.list_vms(ids=[vm_id])] == ["Destroyed"]
    await client.recover_vm(vm_id)
    assert [vm.state for vm in await client.list_vms(ids=[vm_id])] == ["Stopped"]
