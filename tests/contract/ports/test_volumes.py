"""What every `Volumes` does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from oma.domain.actions import ActionKind
from oma.domain.holders import INJECTION, DeviceHolders, ProcessId
from oma.ports import Burn, Fault, RemoteOutcome, RemoteStatus, UpstreamError
from ossea.simulator.model import FaultKind
from tests.contract.ports.scene import Scene, new_id
from tests.contract.ports.sides import Side
from tests.fakes.world import OMA_VM_ID
from tests.unit.volume_daemon.children import INJECTION_SCRIPT

WAIT_S = 20.0


async def _ended(side: Side, operation_id: str) -> RemoteOutcome:
    while (outcome := await side.volumes.wait_operation(operation_id, WAIT_S)).status is RemoteStatus.PENDING:
        pass
    return outcome


async def _attach(side: Side, volume_id: str, vm_id: str = OMA_VM_ID) -> RemoteOutcome:
    operation_id = new_id()
    taken = await side.volumes.submit_attach(volume_id, vm_id, request_id=operation_id, fence=1)
    assert taken == operation_id
    return await _ended(side, operation_id)


async def test_a_volume_is_attached_to_the_oma_mapped_and_seen(side: Side) -> None:
    scene = await Scene(side).seed()
    assert await side.volumes.find_mapping(scene.free) is None
    assert not (await side.volumes.scan_devices()).shows(scene.free)
    assert (await _attach(side, scene.free)).status is RemoteStatus.SUCCEEDED
    assert (await side.volumes.scan_devices()).shows(scene.free)
    mapping = await side.volumes.find_mapping(scene.free)
    assert mapping is not None
    assert (mapping.volume_id, mapping.vm_id, mapping.operation_mode) == (scene.free, OMA_VM_ID, "oma")
    (volume,) = await side.cloud.list_volumes([scene.free])
    assert volume.vm_id == OMA_VM_ID


async def test_a_volume_comes_home_without_its_export_where_that_is_asked_for(side: Side) -> None:
    scene = await Scene(side).seed()
    operation_id = await side.volumes.submit_attach(scene.free, OMA_VM_ID, request_id=new_id(), fence=1, export=False)
    assert (await _ended(side, operation_id)).status is RemoteStatus.SUCCEEDED
    assert (await side.volumes.scan_devices()).shows(scene.free)
    mapping = await side.volumes.find_mapping(scene.free)
    assert mapping is not None
    assert mapping.operation_mode == "oma"
    assert not await side.is_exported(scene.free)
    await _ended(side, await side.volumes.submit_detach(scene.free, request_id=new_id(), fence=1))
    await _attach(side, scene.free)
    assert await side.is_exported(scene.free)


async def test_a_volume_is_detached_unmapped_and_gone(side: Side) -> None:
    scene = await Scene(side).seed()
    await _attach(side, scene.free)
    operation_id = await side.volumes.submit_detach(scene.free, request_id=new_id(), fence=1)
    assert (await _ended(side, operation_id)).status is RemoteStatus.SUCCEEDED
    assert not (await side.volumes.scan_devices()).shows(scene.free)
    assert await side.volumes.find_mapping(scene.free) is None
    (volume,) = await side.cloud.list_volumes([scene.free])
    assert volume.vm_id is None


async def test_a_volume_is_detached_from_a_test_vm(side: Side) -> None:
    scene = await Scene(side).seed()
    operation_id = await side.volumes.submit_detach(scene.root, request_id=new_id(), fence=1)
    assert (await _ended(side, operation_id)).status is RemoteStatus.SUCCEEDED
    (volume,) = await side.cloud.list_volumes([scene.root])
    assert volume.vm_id is None


async def test_a_volume_is_not_taken_off_another_vm_than_the_one_named(side: Side) -> None:
    scene = await Scene(side).seed()
    refused = await side.volumes.submit_detach(scene.data, request_id=new_id(), fence=1, vm_id=OMA_VM_ID)
    outcome = await _ended(side, refused)
    assert outcome.status is RemoteStatus.REFUSED
    assert outcome.upstream is not None
    assert outcome.upstream.code == "volume_on_foreign_vm"
    (volume,) = await side.cloud.list_volumes([scene.data])
    assert volume.vm_id == scene.vm
    named = await side.volumes.submit_detach(scene.data, request_id=new_id(), fence=1, vm_id=scene.vm)
    assert (await _ended(side, named)).status is RemoteStatus.SUCCEEDED


async def test_the_same_id_is_done_once(side: Side) -> None:
    scene = await Scene(side).seed()
    operation_id = new_id()
    for _ in range(2):
        await side.volumes.submit_attach(scene.free, OMA_VM_ID, request_id=operation_id, fence=1)
    assert (await _ended(side, operation_id)).status is RemoteStatus.SUCCEEDED
    await side.volumes.submit_attach(scene.free, OMA_VM_ID, request_id=operation_id, fence=1)
    assert await side.count("attachVolume", scene.free) == 1


async def test_an_older_fence_is_refused(side: Side) -> None:
    scene = await Scene(side).seed()
    await _ended(side, await side.volumes.submit_attach(scene.free, OMA_VM_ID, request_id=new_id(), fence=7))
    with pytest.raises(UpstreamError) as raised:
        await side.volumes.submit_detach(scene.free, request_id=new_id(), fence=6)
    assert (raised.value.fault, raised.value.upstream.code) == (Fault.REFUSED, "fenced")
    assert await side.count("detachVolume", scene.free) == 0


async def test_an_order_that_is_taken_back_never_happens_also_where_it_comes_later(side: Side) -> None:
    scene = await Scene(side).seed()
    given_up = new_id()
    for _ in range(2):
        burnt = await side.volumes.burn(given_up, ActionKind.DETACH_VOLUME, scene.data, fence=4)
        assert burnt is Burn.SPENT
    await side.volumes.submit_detach(scene.data, request_id=given_up, fence=4)
    assert (await _ended(side, given_up)).status is RemoteStatus.REFUSED
    assert await side.count("detachVolume", scene.data) == 0


async def test_taking_an_order_back_tells_the_fence(side: Side) -> None:
    scene = await Scene(side).seed()
    await side.volumes.burn(new_id(), ActionKind.DETACH_VOLUME, scene.data, fence=4)
    with pytest.raises(UpstreamError) as raised:
        await side.volumes.submit_detach(scene.data, request_id=new_id(), fence=3)
    assert raised.value.upstream.code == "fenced"
    with pytest.raises(UpstreamError) as late:
        await side.volumes.burn(new_id(), ActionKind.DETACH_VOLUME, scene.data, fence=3)
    assert late.value.upstream.code == "fenced"


async def test_an_order_that_cloudstack_has_can_not_be_taken_back(side: Side) -> None:
    scene = await Scene(side).seed()
    operation_id = await side.volumes.submit_detach(scene.data, request_id=new_id(), fence=1)
    assert (await _ended(side, operation_id)).status is RemoteStatus.SUCCEEDED
    assert await side.volumes.burn(operation_id, ActionKind.DETACH_VOLUME, scene.data, fence=1) is Burn.ARRIVED


async def test_what_cloudstack_refuses_is_told_in_its_words(side: Side) -> None:
    scene = await Scene(side).seed()
    text = "Unable to detach volume, please specify a VM that does not have VM snapshots"
    await side.add_vm_snapshot(scene.vm)
    operation_id = await side.volumes.submit_detach(scene.data, request_id=new_id(), fence=1)
    outcome = await _ended(side, operation_id)
    assert outcome.status is RemoteStatus.REFUSED
    assert outcome.upstream is not None
    assert (outcome.upstream.system, outcome.upstream.code, outcome.upstream.text) == ("CloudStack", "431", text)


async def test_what_fails_at_the_hypervisor_is_not_taken_for_refused(side: Side) -> None:
    scene = await Scene(side).seed()
    match = {"id": scene.data}
    await side.fault(FaultKind.JOB_FAIL, "detachVolume", errorcode=530, errortext="agent timed out", match=match)
    operation_id = await side.volumes.submit_detach(scene.data, request_id=new_id(), fence=1)
    outcome = await _ended(side, operation_id)
    assert outcome.status is RemoteStatus.FAILED
    assert outcome.upstream is not None
    assert "agent timed out" in outcome.upstream.text


async def test_an_operation_that_runs_is_pending(side: Side) -> None:
    scene = await Scene(side).seed()
    await side.fault(FaultKind.JOB_STUCK, "detachVolume", match={"id": scene.data})
    operation_id = await side.volumes.submit_detach(scene.data, request_id=new_id(), fence=1)
    assert (await side.volumes.wait_operation(operation_id, 0)).status is RemoteStatus.PENDING


async def test_open_operations_of_a_volume_are_listed_oldest_first_whoever_asked(side: Side) -> None:
    scene = await Scene(side).seed()
    assert list(await side.volumes.list_open_operations(scene.data)) == []
    await side.fault(FaultKind.JOB_STUCK, "detachVolume", delay_s=100, match={"id": scene.data})
    detach = await side.volumes.submit_detach(scene.data, request_id=new_id(), fence=1)
    attach = await side.volumes.submit_attach(scene.data, OMA_VM_ID, request_id=new_id(), fence=2)
    found = list(await side.volumes.list_open_operations(scene.data))
    assert [(one.id, one.type) for one in found] == [(detach, "detach"), (attach, "attach")]
    assert all(one.created_at.utcoffset() == timedelta(0) for one in found)
    assert list(await side.volumes.list_open_operations(scene.data)) == found
    assert list(await side.volumes.list_open_operations(scene.free)) == []
    for operation_id in (detach, attach):
        await _ended(side, operation_id)
    assert list(await side.volumes.list_open_operations(scene.data)) == []


async def test_an_older_fence_does_not_take_over_an_operation_either(side: Side) -> None:
    scene = await Scene(side).seed()
    operation_id = new_id()
    await side.volumes.submit_detach(scene.data, request_id=operation_id, fence=2)
    await _ended(side, operation_id)
    with pytest.raises(UpstreamError) as raised:
        await side.volumes.submit_detach(scene.data, request_id=operation_id, fence=1)
    assert (raised.value.fault, raised.value.upstream.code) == (Fault.REFUSED, "fenced")
    assert await side.volumes.submit_detach(scene.data, request_id=operation_id, fence=3) == operation_id
    assert await side.count("detachVolume", scene.data) == 1


async def test_an_id_stands_for_one_order_alone(side: Side) -> None:
    scene = await Scene(side).seed()
    operation_id = new_id()
    await side.volumes.submit_detach(scene.data, request_id=operation_id, fence=1)
    await _ended(side, operation_id)
    with pytest.raises(UpstreamError) as raised:
        await side.volumes.submit_attach(scene.data, OMA_VM_ID, request_id=operation_id, fence=1)
    assert (raised.value.fault, raised.value.upstream.code) == (Fault.REFUSED, "idempotency_key_reused")
    assert await side.count("attachVolume", scene.data) == 0


async def test_an_operation_that_never_arrived_is_absent(side: Side) -> None:
    assert (await side.volumes.wait_operation(new_id(), 0)).status is RemoteStatus.ABSENT


async def test_the_machines_own_uuid_is_told(side: Side) -> None:
    scan = await side.volumes.scan_devices()
    assert (scan.product_uuid, scan.product_uuid_error) == (OMA_VM_ID, None)


async def test_it_says_in_a_sentence_that_it_answers(side: Side) -> None:
    assert "answers" in await side.volumes.check()


async def _at_home(side: Side) -> str:
    scene = await Scene(side).seed()
    assert (await _attach(side, scene.free)).status is RemoteStatus.SUCCEEDED
    return scene.free


async def _held(side: Side, volume_id: str) -> DeviceHolders:
    found = await side.volumes.list_holders(volume_id)
    assert found is not None
    return found


async def test_a_device_that_nobody_holds_is_told_to_be_free(side: Side) -> None:
    found = await _held(side, await _at_home(side))
    assert (found.complete, found.holders, found.unread) == (True, (), ())


async def test_a_volume_that_the_oma_does_not_show_has_no_holders(side: Side) -> None:
    scene = await Scene(side).seed()
    assert await side.volumes.list_holders(scene.free) is None


async def test_an_injection_is_told_with_its_tree_and_may_be_ended(side: Side) -> None:
    volume_id = await _at_home(side)
    async with side.hold(volume_id, INJECTION_SCRIPT) as held:
        found = await _held(side, volume_id)
        assert found.complete
        assert {one.kind for one in found.holders} == {"process"}
        assert held.process in {one.process for one in found.holders}
        assert {(one.role, one.tree, one.endable) for one in found.holders} == {(INJECTION, held.process, True)}
        assert len(found.holders) == 2


async def test_an_injection_is_ended_with_its_whole_tree(side: Side) -> None:
    volume_id = await _at_home(side)
    async with side.hold(volume_id, INJECTION_SCRIPT) as held:
        left = await side.volumes.end_holders(volume_id, [held.process], "it hangs", request_id=new_id(), fence=1)
        assert (left.complete, left.holders) == (True, ())
        assert not held.lives()
        assert (await _held(side, volume_id)).holders == ()


async def test_ending_again_under_the_same_id_is_safe_and_under_another_finds_it_gone(side: Side) -> None:
    volume_id, request_id = await _at_home(side), new_id()
    async with side.hold(volume_id, INJECTION_SCRIPT) as held:
        for again in (request_id, request_id, new_id()):
            left = await side.volumes.end_holders(volume_id, [held.process], "it hangs", request_id=again, fence=1)
            assert left.holders == ()


@pytest.mark.parametrize("name", ["backup.sh", "nbd-server"])
async def test_what_is_no_injection_is_never_ended(side: Side, name: str) -> None:
    volume_id = await _at_home(side)
    async with side.hold(volume_id, name) as held:
        assert not any(one.endable for one in (await _held(side, volume_id)).holders)
        with pytest.raises(UpstreamError) as raised:
            await side.volumes.end_holders(volume_id, [held.process], "it hangs", request_id=new_id(), fence=1)
        assert (raised.value.fault, raised.value.upstream.code) == (Fault.REFUSED, "holder_refused")
        assert held.lives()


async def test_another_process_of_the_same_number_is_left_alone(side: Side) -> None:
    volume_id = await _at_home(side)
    async with side.hold(volume_id, INJECTION_SCRIPT) as held:
        other = ProcessId(held.process.pid, held.process.start_ticks + 1)
        with pytest.raises(UpstreamError) as raised:
            await side.volumes.end_holders(volume_id, [other], "it hangs", request_id=new_id(), fence=1)
        assert (raised.value.fault, raised.value.upstream.code) == (Fault.REFUSED, "holder_changed")
        assert held.lives()


async def test_an_older_fence_ends_nothing(side: Side) -> None:
    scene = await Scene(side).seed()
    await _ended(side, await side.volumes.submit_attach(scene.free, OMA_VM_ID, request_id=new_id(), fence=7))
    async with side.hold(scene.free, INJECTION_SCRIPT) as held:
        with pytest.raises(UpstreamError) as raised:
            await side.volumes.end_holders(scene.free, [held.process], "it hangs", request_id=new_id(), fence=6)
        assert (raised.value.fault, raised.value.upstream.code) == (Fault.REFUSED, "fenced")
        assert held.lives()
