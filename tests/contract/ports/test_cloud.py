"""What every `Cloud` does; the workflow rests on nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from oma.domain.world import CloudSnapshot, CloudVm, CloudVolume
from oma.ports import Fault, RemoteStatus, UpstreamError
from ossea.simulator.model import FaultKind
from tests.contract.ports.scene import MADE_AT, SIZE, Scene, new_id
from tests.contract.ports.sides import Side


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def test_volumes_are_listed_as_cloudstack_shows_them(side: Side) -> None:
    scene = await Scene(side).seed()
    listed = {one.id: one for one in await side.cloud.list_volumes([scene.root, scene.data, scene.free, new_id()])}
    assert listed == {
        scene.root: CloudVolume(
            scene.root, "disk-0", "Ready", SIZE, "ROOT", scene.vm, "pgtest1-test", "Stopped", device_id=0
        ),
        scene.data: CloudVolume(
            scene.data, "disk-1", "Ready", SIZE, "DATADISK", scene.vm, "pgtest1-test", "Stopped", device_id=1
        ),
        scene.free: CloudVolume(scene.free, "disk-2", "Ready", SIZE),
    }


async def test_the_volumes_of_a_vm_are_all_listed(side: Side) -> None:
    scene = await Scene(side).seed()
    assert {one.id for one in await side.cloud.list_volumes_of_vm(scene.vm)} == {scene.root, scene.data}


async def test_snapshots_are_listed_with_their_volume(side: Side) -> None:
    scene = await Scene(side).seed()
    assert list(await side.cloud.list_snapshots([scene.snapshot, new_id()])) == [
        CloudSnapshot(scene.snapshot, scene.free, "test-failover-2", "BackedUp", MADE_AT, SIZE, revertable=True)
    ]


async def test_vms_are_listed(side: Side) -> None:
    scene = await Scene(side).seed()
    assert list(await side.cloud.list_vms([scene.vm, new_id()])) == [
        CloudVm(scene.vm, "pgtest1-test", "Stopped", "pgtest1-test")
    ]


async def test_nothing_asked_is_nothing_listed(side: Side) -> None:
    await Scene(side).seed()
    assert list(await side.cloud.list_volumes([])) == []
    assert list(await side.cloud.list_snapshots([])) == []
    assert list(await side.cloud.list_vms([])) == []
    assert list(await side.cloud.list_vm_snapshot_holders([])) == []


async def test_vms_with_a_vm_snapshot_are_named(side: Side) -> None:
    scene, other = await Scene(side).seed(), await Scene(side).seed()
    await side.add_vm_snapshot(scene.vm)
    assert list(await side.cloud.list_vm_snapshot_holders([scene.vm, other.vm])) == [scene.vm]


async def test_a_vm_is_stopped_and_destroyed_under_the_callers_ids(side: Side) -> None:
    scene = await Scene(side, vm_state="Running").seed()
    stop, destroy = new_id(), new_id()
    assert await side.cloud.submit_stop_vm(scene.vm, forced=False, request_id=stop, expires_at=soon()) == stop
    assert (await side.cloud.wait_job(stop)).status is RemoteStatus.SUCCEEDED
    assert [vm.state for vm in await side.cloud.list_vms([scene.vm])] == ["Stopped"]
    assert await side.cloud.submit_destroy_vm(scene.vm, request_id=destroy, expires_at=soon()) == destroy
    assert (await side.cloud.wait_job(destroy)).status is RemoteStatus.SUCCEEDED
    assert [vm.state for vm in await side.cloud.list_vms([scene.vm])] == ["Destroyed"], "destroyed, never expunged"


async def test_a_snapshot_is_reverted_to_and_deleted(side: Side) -> None:
    scene = await Scene(side).seed()
    revert, delete = new_id(), new_id()
    await side.cloud.submit_revert(scene.snapshot, request_id=revert, expires_at=soon())
    assert (await side.cloud.wait_job(revert)).status is RemoteStatus.SUCCEEDED
    await side.cloud.submit_delete_snapshot(scene.snapshot, request_id=delete, expires_at=soon())
    assert (await side.cloud.wait_job(delete)).status is RemoteStatus.SUCCEEDED
    assert list(await side.cloud.list_snapshots([scene.snapshot])) == []


async def test_a_job_that_cloudstack_refuses_changed_nothing_and_says_why(side: Side) -> None:
    scene = await Scene(side, vm_state="Running").seed()
    job_id = await side.cloud.submit_revert(scene.data_snapshot, request_id=new_id(), expires_at=soon())
    outcome = await side.cloud.wait_job(job_id)
    assert outcome.status is RemoteStatus.REFUSED
    assert outcome.upstream is not None
    assert (outcome.upstream.system, outcome.upstream.code) == ("CloudStack", "431")
    assert outcome.upstream.text == "The VM the specified disk is attached to is not in the shutdown state."


async def test_a_job_that_fails_in_the_middle_leaves_its_effect_unknown(side: Side) -> None:
    scene = await Scene(side).seed()
    match = {"id": scene.snapshot}
    await side.fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, errortext="agent timed out", match=match)
    job_id = await side.cloud.submit_revert(scene.snapshot, request_id=new_id(), expires_at=soon())
    outcome = await side.cloud.wait_job(job_id)
    assert outcome.status is RemoteStatus.FAILED
    assert outcome.upstream is not None
    assert (outcome.upstream.code, outcome.upstream.text) == ("530", "agent timed out")


async def test_a_failed_job_without_a_result_is_no_success(side: Side) -> None:
    scene = await Scene(side).seed()
    match = {"id": scene.snapshot}
    await side.fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530, no_result=True, match=match)
    job_id = await side.cloud.submit_revert(scene.snapshot, request_id=new_id(), expires_at=soon())
    assert (await side.cloud.wait_job(job_id)).status is RemoteStatus.FAILED


async def test_a_job_that_runs_is_pending_and_shows_on_its_snapshot(side: Side) -> None:
    scene = await Scene(side).seed()
    await side.fault(FaultKind.JOB_STUCK, "revertSnapshot", match={"id": scene.snapshot})
    job_id = await side.cloud.submit_revert(scene.snapshot, request_id=new_id(), expires_at=soon())
    assert (await side.cloud.query_job(job_id)).status is RemoteStatus.PENDING
    (volume,) = await side.cloud.list_volumes([scene.free])
    assert not volume.is_settled


async def test_an_id_that_never_arrived_is_absent(side: Side) -> None:
    assert (await side.cloud.query_job(new_id())).status is RemoteStatus.ABSENT


async def test_the_same_call_under_the_same_id_runs_once(side: Side) -> None:
    """ "Already exists" for the call's own id means that it has arrived: it is followed."""
    scene = await Scene(side).seed()
    job_id = new_id()
    for _ in range(2):
        assert await side.cloud.submit_revert(scene.snapshot, request_id=job_id, expires_at=soon()) == job_id
    assert (await side.cloud.wait_job(job_id)).status is RemoteStatus.SUCCEEDED
    assert await side.count_jobs("revertSnapshot", scene.snapshot) == 1


async def test_an_unknown_entity_is_refused(side: Side) -> None:
    with pytest.raises(UpstreamError) as raised:
        await side.cloud.submit_revert(new_id(), request_id=new_id(), expires_at=soon())
    assert raised.value.fault is Fault.REFUSED
    assert raised.value.upstream.code == "431"


async def test_a_call_that_comes_after_its_time_is_refused(side: Side) -> None:
    scene = await Scene(side).seed()
    past = datetime.now(UTC) - timedelta(hours=1)
    with pytest.raises(UpstreamError) as raised:
        await side.cloud.submit_revert(scene.snapshot, request_id=new_id(), expires_at=past)
    assert raised.value.fault in {Fault.REFUSED, Fault.NOT_SENT}
    (volume,) = await side.cloud.list_volumes([scene.free])
    assert volume.is_settled


async def test_a_call_whose_answer_is_lost_is_found_by_its_id(side: Side) -> None:
    scene = await Scene(side).seed()
    await side.cloud.query_job(new_id())
    await side.lose_answer("revertSnapshot", id=scene.snapshot)
    job_id = new_id()
    with pytest.raises(UpstreamError) as raised:
        await side.cloud.submit_revert(scene.snapshot, request_id=job_id, expires_at=soon())
    assert raised.value.fault is Fault.NO_ANSWER
    assert (await side.cloud.wait_job(job_id)).status is RemoteStatus.SUCCEEDED


async def test_it_says_in_a_sentence_that_it_answers(side: Side) -> None:
    assert "answers" in await side.cloud.check()
