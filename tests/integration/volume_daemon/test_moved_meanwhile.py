"""A detach belongs to the VM on which the volume hung when it was decided; it is never sent against another (6-safety 6).

CloudStack takes a volume off whatever VM holds it when the job runs, so each sending is preceded by a look.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from uuid import uuid4

import pytest

from appliance import crashpoints
from oma.adapters.volume_daemon import VolumeDaemonVolumes
from oma.ports import RemoteStatus
from ossea.client import CloudStack
from ossea.credentials import Endpoint
from ossea.models import JobStatus
from tests.crash.dying import Death, Died
from tests.integration.volume_daemon.conftest import FAST, KEY, OMA_ID, SECRET, TEST_VM_ID, World, ended
from tests.integration.volume_daemon.test_unknowns import until
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.models import FaultKind, Operation, OperationStatus

PRODUCTION = "33333333-3333-4333-8333-333333333333"


@pytest.fixture
async def cloud(world: World) -> AsyncIterator[CloudStack]:
    """CloudStack as a person uses it beside the daemon."""
    await world.admin.seed(vms=[{"id": PRODUCTION, "name": "production", "state": "Running"}])
    async with CloudStack(Endpoint(world.api_url, KEY, SECRET)) as client:
        yield client


async def move(cloud: CloudStack, volume_id: str) -> None:
    assert (await cloud.wait_job(await cloud.detach_volume(volume_id))).status is JobStatus.SUCCEEDED
    assert (await cloud.wait_job(await cloud.attach_volume(volume_id, PRODUCTION))).status is JobStatus.SUCCEEDED


async def find_holder(cloud: CloudStack, volume_id: str) -> str | None:
    (volume,) = await cloud.list_volumes(ids=[volume_id])
    return volume.vm_id


def assert_refused(operation: Operation) -> None:
    assert operation.status is OperationStatus.FAILED
    assert operation.error_detail is not None
    assert (operation.error_detail.code, operation.error_detail.kind) == ("volume_on_foreign_vm", FaultKind.REFUSED)
    assert PRODUCTION in operation.error_detail.text


async def test_an_intent_that_died_unsent_is_not_sent_against_another_vm(world: World, cloud: CloudStack):
    world.cloudstack.update(expires_s=3, late_s=1)
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    key = str(uuid4())
    death = Death("volume_daemon.cloud.detach.before")
    with crashpoints.listening(death), suppress(Died):
        async with world.daemon() as client:
            operation = await client.detach(volume_id, request_id=key)
            await until(client, operation, lambda one: one.status is OperationStatus.EXECUTING)
    await move(cloud, volume_id)
    async with world.daemon() as client:
        again = await client.get_operation(key)
        assert again is not None
        assert_refused(await ended(client, again))
    assert await find_holder(cloud, volume_id) == PRODUCTION


@pytest.mark.parametrize("fault", ["sync_error", "http_status"])
async def test_a_sending_that_was_turned_away_is_not_repeated_against_another_vm(
    world: World, cloud: CloudStack, fault: str
):
    """By CloudStack itself (maintenance), or by something before it, where it may have arrived."""
    world.cloudstack.update(expires_s=5, late_s=1)
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    key = str(uuid4())
    words = {"errortext": "maintenance"} if fault == "sync_error" else {}
    await world.admin.add_fault("detachVolume", fault, errorcode=503, times=None, match={"customjobid": key}, **words)
    async with world.daemon() as client:
        operation = await client.detach(volume_id, request_id=key)
        await until(client, operation, lambda one: "CloudStack" in (one.waiting_for or ""))
        await move(cloud, volume_id)
        await world.admin.clear_faults()
        assert_refused(await ended(client, operation))
    assert await find_holder(cloud, volume_id) == PRODUCTION


async def test_it_is_not_sent_where_the_volume_moved_while_it_waited_for_its_turn(world: World, cloud: CloudStack):
    blocker, volume_id = [await world.add_volume(str(uuid4()), vm_id=OMA_ID) for _ in range(2)]
    await world.admin.put_settings(durations=FAST | {"detachVolume": 1.0})
    async with world.daemon(outstanding_per_vm=1) as client:
        first = await client.detach(blocker)
        await until(client, first, lambda one: one.status is OperationStatus.EXECUTING)
        waiting = await client.detach(volume_id)
        await until(client, waiting, lambda one: one.place == 1)
        await world.admin.put_settings(durations=FAST)
        await world.admin.patch_volume(volume_id, vm_id=PRODUCTION)
        assert_refused(await ended(client, waiting))
        assert (await ended(client, first)).status is OperationStatus.COMPLETED
    assert await find_holder(cloud, volume_id) == PRODUCTION


async def test_whoever_names_the_vm_gets_the_volume_off_that_one_only(world: World, cloud: CloudStack):
    volume_id = await world.add_volume(str(uuid4()), vm_id=PRODUCTION)
    async with world.daemon() as client:
        assert_refused(await ended(client, await client.detach(volume_id, vm_id=TEST_VM_ID)))
        assert await find_holder(cloud, volume_id) == PRODUCTION
        named = await ended(client, await client.detach(volume_id, vm_id=PRODUCTION))
        assert named.status is OperationStatus.COMPLETED
    assert len(await world.changes("detachVolume")) == 1


async def test_naming_the_vm_does_not_make_it_another_order(world: World):
    """A caller of the next generation may ask again for what one of the last generation ordered."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    key = str(uuid4())
    async with world.daemon() as client:
        first = await ended(client, await client.detach(volume_id, request_id=key))
        again = await client.detach(volume_id, request_id=key, vm_id=TEST_VM_ID)
    assert again == first


async def test_the_oma_is_told_a_refusal(world: World, cloud: CloudStack):
    volume_id = await world.add_volume(str(uuid4()), vm_id=PRODUCTION)
    async with world.daemon() as client, VolumeDaemonClient(client.base_url) as mine:
        volumes = VolumeDaemonVolumes(mine)
        operation_id = await volumes.submit_detach(volume_id, request_id=str(uuid4()), fence=1, vm_id=TEST_VM_ID)
        outcome = await volumes.wait_operation(operation_id, 10)
    assert outcome.status is RemoteStatus.REFUSED
    assert await find_holder(cloud, volume_id) == PRODUCTION
