"""Roles that may not do everything: what CloudStack refuses for good is done without, never asked for for ever."""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

import pytest

from appliance import crashpoints
from tests.crash.dying import Death, Died
from tests.integration.volume_daemon.conftest import OMA_ID, TEST_VM_ID, World, ended
from tests.integration.volume_daemon.test_unknowns import until
from volume_daemon.models import FaultKind, OperationStatus

SNAPSHOT = "99999999-9999-4999-8999-999999999999"
UNKNOWN_COMMAND = "unable to verify user credentials and/or request signature"
REFUSALS = [(401, UNKNOWN_COMMAND), (531, "the account has no permission")]


@pytest.mark.parametrize(("errorcode", "errortext"), REFUSALS)
async def test_a_role_that_may_not_probe_job_ids_falls_back_on_what_cloudstack_shows(
    world: World, errorcode: int, errortext: str
):
    """The call that never arrived is followed until it cannot arrive any more, and ends as unknown."""
    world.cloudstack.update(expires_s=3, late_s=1)
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    key = str(uuid4())
    await world.admin.add_fault("deleteTags", "sync_error", errorcode=errorcode, errortext=errortext, times=None)
    with crashpoints.listening(Death("volume_daemon.cloud.detach.before")), suppress(Died):
        async with world.daemon() as client:
            operation = await client.detach(volume_id, request_id=key)
            await until(client, operation, lambda one: one.status is OperationStatus.EXECUTING)
    async with world.daemon() as client:
        found = await client.get_operation(key)
        assert found is not None
        done = await ended(client, found)
        assert done.error_detail is not None
        assert (done.error_detail.code, done.error_detail.kind) == ("outcome_unknown", FaultKind.FAILED)
        # Its lane and its turn are free again.
        assert (await ended(client, await client.detach(volume_id))).status is OperationStatus.COMPLETED


@pytest.mark.parametrize("fault", [{"errorcode": 531, "errortext": "no permission"}, {"errorcode": 503}])
async def test_a_role_that_may_not_list_snapshots_keeps_what_was_recorded(world: World, fault: dict[str, object]):
    """Nothing is lost by it, and the volume comes home; where CloudStack only does not answer, for so long."""
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon(cloudstack_wait_s=1) as client:
        await ended(client, await client.attach(volume_id, OMA_ID))
        world.execute("UPDATE device_mappings SET ossea_snapshot_id = :id, snapshot_status = 'ready'", id=SNAPSHOT)
        await ended(client, await client.detach(volume_id))
        kind = "sync_error" if "errortext" in fault else "http_status"
        await world.admin.add_fault("listSnapshots", kind, times=None, **fault)
        done = await ended(client, await client.attach(volume_id, OMA_ID))
    assert (done.status, done.error) == (OperationStatus.COMPLETED, None)
    assert done.response is not None
    assert SNAPSHOT in done.response["snapshot_note"]
    (row,) = world.query("SELECT * FROM device_mappings")
    assert (row["ossea_snapshot_id"], row["snapshot_status"]) == (SNAPSHOT, "ready")
    assert len(world.query("SELECT * FROM nbd_exports")) == 1
