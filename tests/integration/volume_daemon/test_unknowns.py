"""Lost answers, restarts, late devices: what is not known is found out, never guessed and never repeated blindly."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import insert, text

from database.tables import ossea_configs, ossea_volumes
from oma.adapters.volume_daemon import VolumeDaemonVolumes
from oma.ports import Fault, RemoteStatus, UpstreamError
from ossea.client import CloudStack
from ossea.credentials import Endpoint
from tests.integration.volume_daemon.conftest import FAST, KEY, OMA_ID, SECRET, SIZE, TEST_VM_ID, World, ended
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.errors import ErrorKind, VolumeDaemonError
from volume_daemon.models import FaultKind, Operation, OperationStatus


async def until(client: VolumeDaemonClient, operation: Operation, seen: Callable[[Operation], bool]) -> Operation:
    while True:
        found = await client.get_operation(operation.id)
        assert found is not None
        if seen(found):
            return found
        assert not found.has_ended, found.error


def plug(root: Path, volume_id: str, size: int = SIZE) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    disk = root.parent / f"disk-{volume_id}-{size}"
    disk.touch()
    os.truncate(disk, size)
    link = root / f"virtio-{volume_id.replace('-', '')[:20]}"
    link.symlink_to(disk)
    return link


async def test_a_device_that_appears_late_is_waited_for(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    root = world.path / "elsewhere" / "by-id"
    async with world.daemon(device_root=root) as client:
        operation = await client.attach(volume_id, OMA_ID)
        await until(client, operation, lambda one: "device" in (one.waiting_for or ""))
        link = plug(root, volume_id)
        done = await ended(client, operation)
        assert (done.status, done.error) == (OperationStatus.COMPLETED, None)
        mapping = await client.find_mapping(volume_id)
    assert mapping is not None
    assert mapping.device_path == str(link)


async def test_a_device_that_never_appears_does_not_lose_the_mapping(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    root = world.path / "elsewhere" / "by-id"
    root.mkdir(parents=True)
    async with world.daemon(device_root=root, operation_timeout_s=0.3) as client:
        operation = await ended(client, await client.attach(volume_id, OMA_ID))
        assert operation.error_detail is not None
        assert operation.error_detail.code == "device_not_found"
        (row,) = world.query("SELECT * FROM device_mappings")
        assert (row["device_path"], row["linux_state"]) == (f"unlocated-{volume_id}", "unknown")
        mapping = await client.find_mapping(volume_id)
        assert mapping is not None
        assert mapping.linux_state == "missing"
        link = plug(root, volume_id)
        again = await ended(client, await client.attach(volume_id, OMA_ID))
    assert again.status is OperationStatus.COMPLETED
    (row,) = world.query("SELECT * FROM device_mappings")
    assert (row["device_path"], row["linux_state"]) == (str(link), "detected")
    assert len(await world.changes("attachVolume")) == 1


async def test_a_device_of_another_size_is_not_taken_for_the_volume(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    root = world.path / "elsewhere" / "by-id"
    plug(root, volume_id, SIZE // 2)
    async with world.daemon(device_root=root, operation_timeout_s=0.3) as client:
        operation = await ended(client, await client.attach(volume_id, OMA_ID))
    assert operation.error_detail is not None
    assert operation.error_detail.code == "device_size_mismatch"
    assert world.query("SELECT * FROM nbd_exports") == []


async def test_detached_is_not_proven_while_the_oma_shows_the_device(world: World):
    """6-safety 4: proof of detach = CloudStack and the device gone."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=OMA_ID)
    root = world.path / "elsewhere" / "by-id"
    link = plug(root, volume_id)
    async with world.daemon(device_root=root, operation_timeout_s=0.3) as client:
        await ended(client, await client.attach(volume_id, OMA_ID))
        operation = await ended(client, await client.detach(volume_id))
        assert operation.error_detail is not None
        assert (operation.error_detail.code, operation.error_detail.kind) == ("device_still_visible", FaultKind.FAILED)
        (row,) = world.query("SELECT * FROM device_mappings")
        assert (row["cloudstack_state"], row["linux_state"]) == ("detached", "still_visible")
        assert list(world.nbd_dir.iterdir()) == []
        with pytest.raises(VolumeDaemonError) as told:
            await client.find_mapping(volume_id)
        assert (told.value.status, told.value.code) == (503, "state_unknown")
        link.unlink()
        again = await ended(client, await client.detach(volume_id))
        assert again.status is OperationStatus.COMPLETED
        assert await client.find_mapping(volume_id) is None


async def test_431_for_a_volume_that_is_off_is_the_wanted_state(world: World):
    volume_id = await world.add_volume(str(uuid4()), vm_id=OMA_ID)
    words = "The specified volume is not attached to a VM."
    await world.admin.add_fault("detachVolume", "job_fail_applied", errorcode=431, errortext=words)
    async with world.daemon() as client:
        operation = await ended(client, await client.detach(volume_id))
        assert operation.status is OperationStatus.COMPLETED
        assert operation.response is not None
        assert operation.response["already_detached"] is True
        assert operation.response["cloudstack_error"]["errortext"] == words
        # And one that is off already is not asked about at all.
        again = await ended(client, await client.detach(volume_id))
        assert again.status is OperationStatus.COMPLETED
    assert len(await world.changes("detachVolume")) == 1


@pytest.mark.parametrize("custom_job_id", [True, False])
@pytest.mark.parametrize("fault", ["lost_answer", "lost_request"])
async def test_a_lost_answer_is_looked_into_and_nothing_runs_twice(world: World, fault: str, custom_job_id: bool):
    await world.admin.put_settings(custom_job_id=custom_job_id, durations=FAST | {"attachVolume": 0.5})
    volume_id = await world.add_volume(str(uuid4()))
    await world.admin.add_fault("attachVolume", fault, times=1)
    async with world.daemon(operation_timeout_s=3) as client:
        if not custom_job_id and fault == "lost_request":
            # Without the id only the expiry of the signed call can tell, a minute later: it is followed until then.
            operation = await until(client, await client.attach(volume_id, OMA_ID), lambda one: one.overdue)
            assert operation.status is OperationStatus.EXECUTING
            return
        operation = await ended(client, await client.attach(volume_id, OMA_ID))
        assert (operation.status, operation.error) == (OperationStatus.COMPLETED, None)
    state = await world.admin.state()
    jobs = [one for one in _values(state["jobs"]) if "ttach" in str(one.get("command") or one.get("cmd"))]
    assert len(jobs) == 1


def _values(items: object) -> list[dict[str, object]]:
    return list(items.values()) if isinstance(items, dict) else list(items)  # type: ignore[call-overload]


async def test_killed_between_sent_and_ended_the_operation_goes_on(world: World):
    await world.admin.put_settings(durations=FAST | {"attachVolume": 2.0})
    first, second = [await world.add_volume(str(uuid4())) for _ in range(2)]
    daemon = await world.process(outstanding_per_vm=1)
    sent = await daemon.client.attach(first, OMA_ID, request_id=str(uuid4()), fence=7)
    await until(daemon.client, sent, lambda one: one.status is OperationStatus.EXECUTING)
    waiting = await daemon.client.attach(second, OMA_ID)
    await until(daemon.client, waiting, lambda one: one.place == 1)
    while not await world.changes("attachVolume"):
        pass
    await daemon.stop(signal.SIGKILL)
    daemon = await world.process(outstanding_per_vm=1)
    try:
        for operation in (sent, waiting):
            done = await ended(daemon.client, operation)
            assert (done.status, done.error) == (OperationStatus.COMPLETED, None)
    finally:
        assert await daemon.stop() == 0
    calls = await world.changes("attachVolume")
    assert [call["params"]["id"] for call in calls] == [first, second]
    # What was out before the restart still counts in its VM's queue: nothing was sent past it.
    attached = [one for one in await world.admin.effects() if one["effect"] == "DeviceAppeared"]
    assert [one["volume_id"] for one in attached] == [first, second]
    assert calls[1]["at"] >= attached[0]["at"]
    assert len(world.query("SELECT * FROM nbd_exports")) == 2


async def test_an_intent_whose_call_never_arrived_is_sent_after_the_restart(world: World):
    """The crash between commit and call: the journal says "sent", CloudStack knows nothing."""
    volume_id = await world.add_volume(str(uuid4()))
    operation_id = str(uuid4())
    async with world.daemon() as client:
        now = datetime.now(UTC)
        with world.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO volume_operations (id, type, status, volume_id, vm_id, request, created_at, updated_at)"
                    " VALUES (:o, 'attach', 'executing', :v, :vm, '{}', :n, :n)"
                ),
                {"o": operation_id, "v": volume_id, "vm": OMA_ID, "n": str(now.replace(tzinfo=None))},
            )
            connection.execute(
                text(
                    "INSERT INTO volume_daemon_operations (operation_id, volume_id, stage, content_hash, attempt,"
                    " request_id, queue_vm_id, accepted_at, sent_at, expires_at)"
                    " VALUES (:o, :v, 'sent', '', 1, :o, :vm, :n, :n, :n)"
                ),
                {"o": operation_id, "v": volume_id, "vm": OMA_ID, "n": str(now.replace(tzinfo=None))},
            )
    async with world.daemon() as client:
        operation = await client.get_operation(operation_id)
        assert operation is not None
        done = await ended(client, operation)
    assert (done.status, done.error) == (OperationStatus.COMPLETED, None)
    assert [call["params"]["customjobid"] for call in await world.changes("attachVolume")] == [operation_id]


async def test_an_attach_waits_for_an_earlier_detach_that_somebody_else_sent(world: World):
    """6-safety 6 and #14214: the late detach would take the newer attachment off."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    await world.admin.put_settings(durations=FAST | {"detachVolume": 1.0})
    async with CloudStack(Endpoint(world.api_url, KEY, SECRET)) as cloud, world.daemon() as client:
        job_id = await cloud.detach_volume(volume_id)
        operation = await client.attach(volume_id, OMA_ID)
        waiting = await until(client, operation, lambda one: one.waiting_for is not None)
        assert job_id in (waiting.waiting_for or "")
        assert waiting.status is OperationStatus.PENDING
        done = await ended(client, operation)
        assert done.status is OperationStatus.COMPLETED
        (volume,) = await cloud.list_volumes(ids=[volume_id])
    assert volume.vm_id == OMA_ID


async def test_unreachable_is_never_read_as_detached(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    vanished = await world.add_volume(str(uuid4()), vm_id=OMA_ID)
    await world.admin.delete_volume(vanished)
    async with world.daemon() as client:
        assert await client.find_mapping(volume_id) is None
        with pytest.raises(VolumeDaemonError, match='not "detached"'):
            await client.find_mapping(vanished)
    world.api_url = "http://127.0.0.1:9/client/api"
    async with world.daemon(cloudstack_wait_s=0.3) as client:
        with pytest.raises(VolumeDaemonError) as told:
            await client.find_mapping(volume_id)
        assert (told.value.kind, told.value.status, told.value.code) == (ErrorKind.FAILED, 503, "state_unknown")
        with pytest.raises(UpstreamError) as raised:
            await VolumeDaemonVolumes(client).find_mapping(volume_id)
        assert raised.value.fault is Fault.FAILED
        operation = await ended(client, await client.detach(volume_id))
        assert operation.error_detail is not None
        assert (operation.error_detail.code, operation.error_detail.kind) == ("cloudstack_timeout", FaultKind.REFUSED)


async def test_an_overdue_operation_is_told_and_followed_to_its_end(world: World):
    await world.admin.put_settings(durations=FAST | {"attachVolume": 1.5})
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon(operation_timeout_s=0.3) as client:
        volumes = VolumeDaemonVolumes(client)
        operation_id = await volumes.submit_attach(volume_id, OMA_ID, request_id=str(uuid4()), fence=1)
        late = await volumes.wait_operation(operation_id, 30)
        assert (late.status, late.overdue) == (RemoteStatus.PENDING, True)
        done = await volumes.wait_operation(operation_id, 30)
        assert (done.status, done.overdue) == (RemoteStatus.SUCCEEDED, False)


async def test_what_the_oma_learns_of_the_end(world: World):
    refused, broken = [await world.add_volume(str(uuid4()), vm_id=OMA_ID) for _ in range(2)]
    await world.admin.add_fault("detachVolume", "job_fail", errorcode=431, errortext="no", match={"id": refused})
    await world.admin.add_fault("detachVolume", "job_fail", errorcode=530, errortext="broken", match={"id": broken})
    async with world.daemon() as client:
        volumes = VolumeDaemonVolumes(client)
        assert (await volumes.wait_operation(str(uuid4()), 0)).status is RemoteStatus.ABSENT
        for volume_id, status, code, words in (
            (refused, RemoteStatus.REFUSED, "431", "no"),
            (broken, RemoteStatus.FAILED, "530", "broken"),
        ):
            operation_id = await volumes.submit_detach(volume_id, request_id=str(uuid4()), fence=1)
            outcome = await volumes.wait_operation(operation_id, 30)
            assert outcome.upstream is not None
            found = (outcome.status, outcome.upstream.system, outcome.upstream.code, outcome.upstream.text)
            assert found == (status, "CloudStack", code, words)
        with pytest.raises(UpstreamError) as fenced:
            await volumes.submit_detach(refused, request_id=str(uuid4()), fence=0)
        assert (fenced.value.fault, fenced.value.upstream.code) == (Fault.REFUSED, "fenced")
    async with VolumeDaemonClient("http://127.0.0.1:9") as nobody:
        with pytest.raises(UpstreamError) as unreachable:
            await VolumeDaemonVolumes(nobody).scan_devices()
        assert unreachable.value.fault is Fault.NOT_SENT


@pytest.mark.parametrize(("days", "code"), [(1, "outcome_unknown"), (7, None)])
async def test_an_old_intent_is_not_taken_for_never_arrived(world: World, days: int, code: str | None):
    """What CloudStack says of an unknown id counts only while it would still remember, by `job.expire.minutes`."""
    world.cloudstack = {"job_expire_minutes": days * 1440}
    volume_id = await world.add_volume(str(uuid4()))
    operation_id = str(uuid4())
    old = str((datetime.now(UTC) - timedelta(days=2)).replace(tzinfo=None))
    with world.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO volume_operations (id, type, status, volume_id, vm_id, request, created_at, updated_at)"
                " VALUES (:o, 'attach', 'executing', :v, :vm, '{}', :n, :n)"
            ),
            {"o": operation_id, "v": volume_id, "vm": OMA_ID, "n": old},
        )
        connection.execute(
            text(
                "INSERT INTO volume_daemon_operations (operation_id, volume_id, stage, content_hash, attempt,"
                " request_id, queue_vm_id, accepted_at, sent_at, expires_at)"
                " VALUES (:o, :v, 'sent', '', 1, :o, :vm, :n, :n, :n)"
            ),
            {"o": operation_id, "v": volume_id, "vm": OMA_ID, "n": old},
        )
    async with world.daemon() as client:
        operation = await client.get_operation(operation_id)
        assert operation is not None
        done = await ended(client, operation)
    assert (done.error_detail.code if done.error_detail else None) == code
    assert len(await world.changes("attachVolume")) == (0 if code else 1)


@pytest.mark.parametrize("offset_s", [7200, -7200])
async def test_expiry_is_journaled_as_it_was_sent_in_the_servers_time(world: World, offset_s: int):
    volume_id = await world.add_volume(str(uuid4()))
    await world.admin.put_settings(clock_offset_s=offset_s)
    async with world.daemon() as client:
        operation = await ended(client, await client.attach(volume_id, OMA_ID))
    assert (operation.status, operation.error) == (OperationStatus.COMPLETED, None)
    (call,) = await world.changes("attachVolume")
    (row,) = world.query("SELECT expires_at FROM volume_daemon_operations")
    sent = datetime.strptime(call["params"]["expires"], "%Y-%m-%dT%H:%M:%S%z")
    kept = datetime.fromisoformat(str(row["expires_at"])).replace(tzinfo=UTC)
    assert abs(sent - kept) <= timedelta(seconds=2)
    assert abs(sent - datetime.now(UTC)) > timedelta(hours=1)


async def test_a_device_root_that_is_not_there_proves_nothing(world: World):
    """6-safety 4: "absent" from a place that cannot be read would be proven vacuously."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=OMA_ID)
    root = world.path / "nowhere" / "by-id"
    async with world.daemon(device_root=root, operation_timeout_s=0.3) as client:
        with pytest.raises(VolumeDaemonError) as scan:
            await client.scan_devices()
        assert (scan.value.status, scan.value.code) == (503, "state_unknown")
        assert str(root) in scan.value.text
        operation = await ended(client, await client.detach(volume_id))
        assert operation.error_detail is not None
        assert (operation.error_detail.code, operation.error_detail.kind) == ("device_unknown", FaultKind.FAILED)
        with pytest.raises(VolumeDaemonError) as mapping:
            await client.find_mapping(volume_id)
        assert (mapping.value.status, mapping.value.code) == (503, "state_unknown")
        health = await client.health()
        assert not health["dependencies"]["devices"]["ok"]
        back = await ended(client, await client.attach(volume_id, OMA_ID))
        assert back.error_detail is not None
        assert back.error_detail.code == "device_unknown"
        with pytest.raises(VolumeDaemonError) as attached:
            await client.find_mapping(volume_id)
        assert (attached.value.status, attached.value.code) == (503, "state_unknown")
    (row,) = world.query("SELECT * FROM device_mappings")
    assert (row["device_path"], row["linux_state"]) == (f"unlocated-{volume_id}", "unknown")


async def test_the_oma_is_the_vm_of_the_configuration_that_the_volumes_row_names(world: World):
    """6-safety 1: also where that configuration is not the active one."""
    volume_id = await world.add_volume(str(uuid4()))
    with world.engine.begin() as connection:
        connection.execute(text("UPDATE ossea_configs SET is_active = 0"))
        connection.execute(insert(ossea_configs).values(name="other", oma_vm_id=TEST_VM_ID, is_active=True))
        config_id = connection.execute(text("SELECT id FROM ossea_configs WHERE name = 'main'")).scalar()
        connection.execute(
            insert(ossea_volumes).values(volume_id=volume_id, volume_name="disk", ossea_config_id=config_id, size_gb=1)
        )
    async with world.daemon() as client:
        operation = await ended(client, await client.attach(volume_id, OMA_ID))
        mapping = await client.find_mapping(volume_id)
    assert (operation.status, operation.error) == (OperationStatus.COMPLETED, None)
    assert mapping is not None
    assert (mapping.operation_mode, mapping.linux_state) == ("oma", "detected")
    assert len(world.query("SELECT * FROM nbd_exports")) == 1


async def test_what_attaching_means_is_not_guessed_among_several_configurations(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    with world.engine.begin() as connection:
        connection.execute(insert(ossea_configs).values(name="other", oma_vm_id=TEST_VM_ID, is_active=True))
    async with world.daemon() as client:
        operation = await ended(client, await client.attach(volume_id, OMA_ID))
    assert operation.error_detail is not None
    assert (operation.error_detail.code, operation.error_detail.kind) == ("oma_unknown", FaultKind.REFUSED)
    assert await world.changes("attachVolume") == []
