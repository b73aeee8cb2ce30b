"""A row of the journal that makes no sense, of a call that may be on its way: it ends, and nothing happens after that."""

from __future__ import annotations

from uuid import uuid4

import pytest

from ossea.client import CloudStack
from ossea.credentials import Endpoint
from tests.integration.volume_daemon.conftest import KEY, SECRET, TEST_VM_ID, World, ended
from tests.integration.volume_daemon.test_fences import DETACH, behind
from tests.proxy import running_proxy
from volume_daemon.models import FaultKind, OperationStatus

DAMAGES = {
    "a time": "UPDATE volume_operations SET created_at = 'yesterday' WHERE id = :id",
    "the type": "UPDATE volume_operations SET type = 'cleanup' WHERE id = :id",
    "the status": "UPDATE volume_operations SET status = 'completed' WHERE id = :id",
    "the stage": "UPDATE volume_daemon_operations SET stage = 'somewhere' WHERE operation_id = :id",
    "the expiry": "UPDATE volume_daemon_operations SET expires_at = 'soon' WHERE operation_id = :id",
    "the expiry, far away": "UPDATE volume_daemon_operations SET expires_at = '9000-01-01 00:00:00', request_id = NULL"
    " WHERE operation_id = :id",
    "the expiry, at the end of all time": "UPDATE volume_daemon_operations SET expires_at = '9999-12-31 23:59:59.5'"
    " WHERE operation_id = :id",
    "the sending, at the end of all time": "UPDATE volume_daemon_operations SET sent_at = '9999-12-31 23:59:59.5'"
    " WHERE operation_id = :id",
    "the request, too deep": "UPDATE volume_operations SET request = replace(hex(zeroblob(50000)), '0', '[')"
    " WHERE id = :id",
    "an error": "UPDATE volume_daemon_operations SET error = '[1]' WHERE operation_id = :id",
    "its public row": "DELETE FROM volume_operations WHERE id = :id",
}


@pytest.mark.parametrize(
    ("damage", "custom_job_id"),
    [
        *((damage, True) for damage in DAMAGES),
        ("a time", False),
        ("the expiry", False),
        ("the expiry, far away", False),
    ],
)
async def test_its_call_takes_no_newer_attachment_away(world: World, damage: str, custom_job_id: bool):
    """Its id is spent; where the endpoint gives jobs ids of its own, the time by which it expires is waited for."""
    await world.admin.put_settings(custom_job_id=custom_job_id)
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    simulator = int(world.api_url.split(":")[2].split("/")[0])
    async with running_proxy(simulator) as proxy:
        await behind(world, proxy)
        async with world.daemon() as client:
            held = proxy.hold(DETACH)
            operation = await client.detach(volume_id)
            await held.arrived()
        world.execute(DAMAGES[damage], id=operation.id)
        async with world.daemon() as client:
            after = await ended(client, await client.attach(volume_id, TEST_VM_ID))
            held.release()
            await held.delivered()
            told = await client.get_operation(operation.id)
            listed = await client.list_operations()
        async with CloudStack(Endpoint(world.api_url, KEY, SECRET)) as cloud:
            (volume,) = await cloud.list_volumes(ids=[volume_id])
            while volume.job_id is not None and volume.job_status == 0:
                (volume,) = await cloud.list_volumes(ids=[volume_id])
    assert after.status is OperationStatus.COMPLETED
    assert volume.vm_id == TEST_VM_ID, "a late detach has not taken the newer attachment away"
    assert after.id in {one.id for one in listed}
    if damage == "its public row":
        assert told is None
        return
    assert told is not None
    assert told.status is OperationStatus.FAILED
    assert told.error_detail is not None
    assert (told.error_detail.code, told.error_detail.kind) == ("journal_unreadable", FaultKind.FAILED)
    (last,) = world.query("SELECT new_status FROM volume_operation_history WHERE operation_id = :id ORDER BY id DESC"
                          " LIMIT 1", id=operation.id)  # fmt: skip
    assert last["new_status"] == "failed"


async def test_it_stays_condemned_over_another_restart(world: World):
    """A row that was mended so that it can be read must not be taken for a whole one."""
    await world.admin.put_settings(custom_job_id=False)
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    simulator = int(world.api_url.split(":")[2].split("/")[0])
    async with running_proxy(simulator) as proxy:
        await behind(world, proxy)
        async with world.daemon() as client:
            held = proxy.hold(DETACH)
            operation = await client.detach(volume_id)
            await held.arrived()
        held.drop()
        world.execute(DAMAGES["a time"], id=operation.id)
        async with world.daemon() as client:
            waiting = await client.get_operation(operation.id)
            assert waiting is not None
            assert (waiting.status, waiting.error_detail and waiting.error_detail.code) == (
                OperationStatus.EXECUTING,
                "journal_unreadable",
            )
        async with world.daemon() as client:
            done = await ended(client, waiting)
    assert done.error_detail is not None
    assert done.error_detail.code == "journal_unreadable"
    assert await world.changes("detachVolume") == []
