"""Others at work on the same volume, the same job id, the same address."""

from __future__ import annotations

from contextlib import suppress
from uuid import uuid4

import pytest

from appliance import crashpoints
from appliance.serving import bind_site
from ossea.client import CloudStack
from ossea.credentials import Endpoint
from ossea.submitting import Spent
from tests.crash.dying import Death, Died
from tests.integration.volume_daemon.conftest import FAST, KEY, OMA_ID, SECRET, TEST_VM_ID, World, ended
from tests.integration.volume_daemon.test_unknowns import until
from volume_daemon.models import FaultKind, OperationStatus


async def test_somebody_elses_job_that_does_not_end_is_not_waited_for_for_ever(world: World):
    """As `RevertSnapshotting` that nobody resets: an answer with what is to be looked at, not an endless wait."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    await world.admin.put_settings(durations=FAST | {"detachVolume": 600.0})
    async with CloudStack(Endpoint(world.api_url, KEY, SECRET)) as cloud, world.daemon(cloudstack_wait_s=1) as client:
        job_id = await cloud.detach_volume(volume_id)
        busy = await ended(client, await client.detach(volume_id))
    assert busy.error_detail is not None
    assert (busy.error_detail.code, busy.error_detail.kind) == ("volume_busy", FaultKind.REFUSED)
    assert job_id in busy.error_detail.text
    assert len(await world.changes("detachVolume")) == 1


async def test_one_that_comes_up_behind_our_own_call_and_does_not_end_does_not_keep_its_end_back(world: World):
    """What CloudStack shows counts then; what is done to the volume next waits for that job by itself."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    await world.admin.put_settings(durations=FAST | {"detachVolume": 1.0})
    async with CloudStack(Endpoint(world.api_url, KEY, SECRET)) as cloud, world.daemon(cloudstack_wait_s=1) as client:
        operation = await client.detach(volume_id)
        while not await world.changes("detachVolume"):
            pass
        await world.admin.add_fault("detachVolume", "job_late", delay_s=600)
        job_id = await cloud.detach_volume(volume_id)
        done = await ended(client, operation)
        assert done.status is OperationStatus.COMPLETED
        assert done.response is not None
        assert job_id in done.response["sentence"]
        busy = await ended(client, await client.attach(volume_id, TEST_VM_ID))
    assert busy.error_detail is not None
    assert busy.error_detail.code == "volume_busy"


async def test_an_id_that_was_spent_on_something_else_is_not_taken_for_the_calls_own_job(world: World):
    """Adopt or burn: whoever gave the call up has burnt its id, and it never arrives."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    key = str(uuid4())
    with crashpoints.listening(Death("volume_daemon.cloud.detach.before")), suppress(Died):
        async with world.daemon() as client:
            operation = await client.detach(volume_id, request_id=key)
            await until(client, operation, lambda one: one.status is OperationStatus.EXECUTING)
    async with CloudStack(Endpoint(world.api_url, KEY, SECRET)) as cloud:
        assert await cloud.spend_job_id(key, (OMA_ID, "oma-epoch", "tests:1")) is Spent.BY_US
    async with world.daemon() as client:
        found = await client.get_operation(key)
        assert found is not None
        done = await ended(client, found)
    assert done.error_detail is not None
    assert (done.error_detail.code, done.error_detail.kind) == ("request_id_spent", FaultKind.REFUSED)
    assert await world.changes("detachVolume") == []


def test_an_address_is_taken_from_the_first_moment_on() -> None:
    """Two daemons that start together must not both go on with the journal before one of them listens."""
    first = bind_site("127.0.0.1", 0)
    try:
        with pytest.raises(OSError, match="in use"):
            bind_site("127.0.0.1", first.getsockname()[1])
    finally:
        first.close()
