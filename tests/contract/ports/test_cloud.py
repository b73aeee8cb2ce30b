"""What every `Cloud` does; the workflow rests on nothing else."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from oma.domain.actions import ActionKind
from oma.domain.world import MARK_KEY, CloudSnapshot, CloudVm, CloudVolume, Mark, Marked
from oma.ports import Burn, Fault, RemoteStatus, UpstreamError
from ossea.simulator.model import FaultKind
from ossea.simulator.model.catalog import HOST_ID
from tests.contract.ports.scene import MADE_AT, SIZE, Scene, new_id
from tests.contract.ports.sides import Side
from tests.fakes.world import OMA_VM_ID


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


async def test_volumes_are_listed_as_cloudstack_shows_them(side: Side) -> None:
    scene = await Scene(side).seed()
    found = await side.cloud.list_volumes([scene.root, scene.data, scene.free, new_id()])
    assert [one.id for one in found if one.attached_at is not None] == [scene.root, scene.data]
    assert {one.id: replace(one, attached_at=None) for one in found} == {
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


async def test_a_host_tells_its_state_and_one_that_is_gone_is_removed(side: Side) -> None:
    assert await side.cloud.find_host_state(HOST_ID) == "Up"
    assert await side.cloud.find_host_state(new_id()) == "Removed"


async def test_snapshots_are_listed_with_their_volume(side: Side) -> None:
    scene = await Scene(side).seed()
    assert list(await side.cloud.list_snapshots([scene.snapshot, new_id()])) == [
        CloudSnapshot(scene.snapshot, scene.free, "test-failover-2", "BackedUp", MADE_AT, SIZE, revertable=True)
    ]


async def test_vms_are_listed(side: Side) -> None:
    scene = await Scene(side).seed()
    (vm,) = await side.cloud.list_vms([scene.vm, new_id()])
    assert vm.created is not None
    assert vm.created.utcoffset() == timedelta(0)
    assert vm == CloudVm(scene.vm, "pgtest1-test", "Stopped", "pgtest1-test", created=vm.created)


async def test_a_vm_that_something_is_done_to_shows_the_job(side: Side) -> None:
    scene = await Scene(side, vm_state="Running").seed()
    await side.fault(FaultKind.JOB_STUCK, "stopVirtualMachine", match={"id": scene.vm})
    job_id = await side.cloud.submit_stop_vm(scene.vm, forced=False, request_id=new_id(), expires_at=soon())
    (vm,) = await side.cloud.list_vms([scene.vm])
    assert vm.pending_job_id == job_id


async def test_vms_are_found_by_a_part_of_their_name_gone_or_not(side: Side) -> None:
    name = f"pgtest1-test-{new_id()[:8]}"
    await side.seed(vms=[{"id": (here := new_id()), "name": name}, {"id": (gone := new_id()), "name": f"x-{name}"}])
    await side.seed(vms=[{"id": new_id(), "name": f"other-{new_id()}"}])
    await side.cloud.submit_destroy_vm(gone, request_id=(job_id := new_id()), expires_at=soon())
    await side.cloud.wait_job(job_id)
    found = {vm.id: vm.state for vm in await side.cloud.list_vms_named(name[8:])}
    assert found[here] != "Destroyed"
    assert found == {here: found[here], gone: "Destroyed"}
    assert list(await side.cloud.list_vms_named(f"nobody-{new_id()}")) == []


async def test_the_events_of_exactly_one_vm_oldest_first(side: Side) -> None:
    scene, other = await Scene(side, vm_state="Running").seed(), await Scene(side, vm_state="Running").seed()
    for vm in (scene.vm, other.vm):
        stop, destroy = new_id(), new_id()
        await side.cloud.submit_stop_vm(vm, forced=False, request_id=stop, expires_at=soon())
        await side.cloud.wait_job(stop)
        if vm == scene.vm:
            await side.cloud.submit_destroy_vm(vm, request_id=destroy, expires_at=soon())
            await side.cloud.wait_job(destroy)
    events = await side.cloud.list_vm_events(scene.vm)
    types = [event.type for event in events]
    assert types.index("VM.STOP") < types.index("VM.DESTROY")
    assert all(event.at is not None and event.at.utcoffset() == timedelta(0) for event in events)
    assert "VM.DESTROY" not in [event.type for event in await side.cloud.list_vm_events(other.vm)]
    assert list(await side.cloud.list_vm_events(new_id())) == []


async def test_markers_are_set_on_all_or_on_none_and_cleared_by_their_value(side: Side) -> None:
    scene = await Scene(side).seed()
    cloud, ids = side.cloud, [scene.data, scene.free]
    request_id = new_id()
    job_id = await _mark(side, Marked.VOLUME, ids, "oma/job-1", request_id)
    assert job_id == request_id
    assert (await cloud.wait_job(job_id)).status is RemoteStatus.SUCCEEDED
    assert {one.volume_id: one.value for one in await cloud.list_marks_of(Marked.VOLUME, [*ids, scene.root])} == (
        dict.fromkeys(ids, "oma/job-1")
    )

    other = await _mark(side, Marked.VOLUME, [scene.root, scene.data], "oma-2/job-9", new_id())
    assert (await cloud.wait_job(other)).status is RemoteStatus.FAILED
    assert await cloud.list_marks_of(Marked.VOLUME, [scene.root]) == []

    nothing = await _unmark(side, ids, "oma-2/job-9")
    assert (await cloud.wait_job(nothing)).status is RemoteStatus.FAILED
    cleared = await _unmark(side, ids, "oma/job-1")
    assert (await cloud.wait_job(cleared)).status is RemoteStatus.SUCCEEDED
    assert await cloud.list_marks_of(Marked.VOLUME, ids) == []


async def _mark(side: Side, what: Marked, ids: list[str], value: str, request_id: str) -> str:
    return await side.cloud.submit_set_marks(what, ids, value, request_id=request_id, expires_at=soon())


async def _unmark(side: Side, ids: list[str], value: str) -> str:
    return await side.cloud.submit_clear_marks(Marked.VOLUME, ids, value, request_id=new_id(), expires_at=soon())


async def test_a_snapshots_marker_goes_with_the_snapshot(side: Side) -> None:
    scene = await Scene(side).seed()
    marked = await _mark(side, Marked.SNAPSHOT, [scene.snapshot], "oma/job-1", new_id())
    assert (await side.cloud.wait_job(marked)).status is RemoteStatus.SUCCEEDED
    mark = Mark(scene.snapshot, "oma/job-1", Marked.SNAPSHOT)
    assert await side.cloud.list_marks_of(Marked.SNAPSHOT, [scene.snapshot]) == [mark]
    assert mark in await side.cloud.list_marks()
    gone = await side.cloud.submit_delete_snapshot(scene.snapshot, request_id=new_id(), expires_at=soon())
    assert (await side.cloud.wait_job(gone)).status is RemoteStatus.SUCCEEDED
    assert await side.cloud.list_marks_of(Marked.SNAPSHOT, [scene.snapshot]) == []


async def test_an_epoch_is_put_in_the_place_of_the_one_before(side: Side) -> None:
    scene = await Scene(side).seed()
    assert await side.cloud.find_epoch(scene.vm) is None
    await side.cloud.put_epoch(scene.vm, "oma:1", None)
    await side.cloud.put_epoch(scene.vm, "oma:2", "oma:1")
    await side.cloud.put_epoch(scene.vm, "oma:2", "oma:2")
    assert await side.cloud.find_epoch(scene.vm) == "oma:2"


@pytest.mark.parametrize("former", [None, "oma:56"])
async def test_an_epoch_that_nobody_expected_stays(side: Side, former: str | None) -> None:
    """The witness of a newer database is never taken off by an older one."""
    scene = await Scene(side).seed()
    await side.cloud.put_epoch(scene.vm, "oma:57", None)
    with pytest.raises(UpstreamError):
        await side.cloud.put_epoch(scene.vm, "oma:13", former)
    assert await side.cloud.find_epoch(scene.vm) == "oma:57"


async def test_the_events_of_exactly_one_volume_oldest_first(side: Side) -> None:
    scene = await Scene(side).seed()
    for volume_id in (scene.data, scene.free):
        for order in ("detach", "attach"):
            request_id = new_id()
            if order == "attach":
                await side.volumes.submit_attach(volume_id, OMA_VM_ID, request_id=request_id, fence=1)
            elif volume_id == scene.data:
                await side.volumes.submit_detach(volume_id, request_id=request_id, fence=1)
            else:
                continue
            while (await side.volumes.wait_operation(request_id, 20)).status is RemoteStatus.PENDING:
                pass
    events = await side.cloud.list_volume_events(scene.data)
    types = [event.type for event in events]
    assert types.index("VOLUME.DETACH") < types.index("VOLUME.ATTACH")
    assert all(event.at is not None and event.at.utcoffset() == timedelta(0) for event in events)
    assert list(events) == sorted(events, key=lambda event: event.at or MADE_AT)
    assert "VOLUME.DETACH" not in {event.type for event in await side.cloud.list_volume_events(scene.free)}
    assert list(await side.cloud.list_volume_events(new_id())) == []


async def test_markers_are_listed_by_their_volume(side: Side) -> None:
    scene = await Scene(side).seed()
    await side.tag_volume(scene.data, MARK_KEY, "oma-2/job-9")
    await side.tag_volume(scene.root, "owner", "somebody")
    marks = [mark for mark in await side.cloud.list_marks() if mark.volume_id in {scene.root, scene.data, scene.free}]
    assert marks == [Mark(scene.data, "oma-2/job-9")]
    assert marks[0].installation == "oma-2"


async def test_snapshots_are_found_by_a_part_of_their_name(side: Side) -> None:
    scene = await Scene(side).seed()
    found = {one.id: one.volume_id for one in await side.cloud.list_snapshots_named("test-failover-")}
    assert found[scene.snapshot] == scene.free
    assert found[scene.data_snapshot] == scene.data
    assert scene.snapshot not in {one.id for one in await side.cloud.list_snapshots_named("test-failover-1")}
    assert list(await side.cloud.list_snapshots_named(f"nothing-{new_id()}")) == []


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


async def test_an_id_that_is_given_up_is_spent_and_its_call_never_runs(side: Side) -> None:
    scene = await Scene(side).seed()
    given_up = new_id()
    for _ in range(2):
        assert await side.cloud.burn(given_up, ActionKind.REVERT_SNAPSHOT, OMA_VM_ID, "oma") is Burn.SPENT
    with pytest.raises(UpstreamError) as raised:
        await side.cloud.submit_revert(scene.snapshot, request_id=given_up, expires_at=soon())
    assert raised.value.fault is Fault.REFUSED
    assert await side.count_jobs("revertSnapshot", scene.snapshot) == 0
    (volume,) = await side.cloud.list_volumes([scene.free])
    assert volume.is_settled
    for outcome in (
        await side.cloud.wait_job(given_up, ActionKind.REVERT_SNAPSHOT),
        await side.cloud.query_job(given_up, ActionKind.REVERT_SNAPSHOT),
    ):
        assert outcome.status is RemoteStatus.REFUSED, "whatever became of the job that it was spent on"


async def test_a_call_that_came_in_before_its_id_was_given_up_has_arrived(side: Side) -> None:
    scene = await Scene(side).seed()
    job_id = await side.cloud.submit_revert(scene.snapshot, request_id=new_id(), expires_at=soon())
    assert await side.cloud.burn(job_id, ActionKind.REVERT_SNAPSHOT, OMA_VM_ID, "oma") is Burn.ARRIVED
    assert (await side.cloud.wait_job(job_id)).status is RemoteStatus.SUCCEEDED


async def test_the_id_of_a_marking_is_given_up_by_another_command(side: Side) -> None:
    scene = await Scene(side).seed()
    given_up, marked = new_id(), new_id()
    assert await side.cloud.burn(given_up, ActionKind.SET_MARKER, OMA_VM_ID, "oma") is Burn.SPENT
    await side.cloud.submit_set_marks(Marked.VOLUME, [scene.free], "oma/1", request_id=marked, expires_at=soon())
    assert await side.cloud.burn(marked, ActionKind.SET_MARKER, OMA_VM_ID, "oma") is Burn.ARRIVED
    with pytest.raises(UpstreamError):
        await side.cloud.submit_set_marks(Marked.VOLUME, [scene.free], "oma/1", request_id=given_up, expires_at=soon())


async def test_the_servers_clock_is_told(side: Side) -> None:
    first = await side.cloud.find_server_time()
    assert first.utcoffset() == timedelta(0)
    assert await side.cloud.find_server_time() >= first


async def test_it_says_in_a_sentence_that_it_answers(side: Side) -> None:
    assert "answers" in await side.cloud.check()
