"""6-safety 6: what a lost fence ordered is never sent, and what may still arrive is outlasted before anything follows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from ossea.client import CloudStack
from ossea.credentials import Endpoint
from tests.integration.volume_daemon.conftest import FAST, KEY, OMA_ID, SECRET, TEST_VM_ID, World, ended
from tests.proxy import Proxy, running_proxy
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.errors import VolumeDaemonError
from volume_daemon.models import FaultKind, Operation, OperationStatus

DETACH = b"command=detachVolume"


async def until(client: VolumeDaemonClient, operation: Operation, seen: Callable[[Operation], bool]) -> Operation:
    while True:
        found = await client.get_operation(operation.id)
        assert found is not None
        if seen(found):
            return found
        assert not found.has_ended, found.error


def code_of(operation: Operation) -> tuple[str, FaultKind] | None:
    error = operation.error_detail
    return (error.code, error.kind) if error else None


async def test_a_fence_outlives_the_daemon(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon() as client:
        await ended(client, await client.attach(volume_id, OMA_ID, fence=7))
    async with world.daemon() as client:
        with pytest.raises(VolumeDaemonError, match="fenced"):
            await client.detach(volume_id, fence=6)
    assert await world.changes("detachVolume") == []


async def test_what_waits_for_its_turn_is_not_sent_when_a_newer_holder_has_spoken(world: World):
    busy, volume_id = [await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID) for _ in range(2)]
    await world.admin.put_settings(durations=FAST | {"detachVolume": 1.0})
    async with world.daemon(outstanding_per_vm=1) as client:
        first = await client.detach(busy)
        await until(client, first, lambda one: one.status is OperationStatus.EXECUTING)
        waiting = await client.detach(volume_id, fence=3)
        await until(client, waiting, lambda one: one.place == 1)
        await client.revoke(str(uuid4()), "detach", volume_id, fence=4)
        outdated = await ended(client, waiting)
        await ended(client, first)
    assert code_of(outdated) == ("fenced", FaultKind.REFUSED)
    assert [call["params"]["id"] for call in await world.changes("detachVolume")] == [busy]


@pytest.fixture
def slow_reload(tmp_path: Path) -> Iterator[tuple[list[str], Callable[[], object]]]:
    """A reload of nbd-server that takes until it is let go; each call of the function lets one go."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    script = tmp_path / "reload.sh"
    script.write_text(f"#!/bin/sh\nread word < {pipe}\n")
    script.chmod(0o755)
    handle = os.open(pipe, os.O_RDWR)
    yield [str(script)], lambda: os.write(handle, b"on\n")
    os.close(handle)


async def test_a_fence_that_is_lost_between_intent_and_call_is_heeded(
    world: World, slow_reload: tuple[list[str], Callable[[], object]]
):
    """The intent is committed, the export is just being taken away: the last look is right before the call."""
    command, let_go = slow_reload
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon() as client:
        await ended(client, await client.attach(volume_id, OMA_ID, fence=3))
    async with world.daemon(nbd_reload_command=command) as client:
        operation = await client.detach(volume_id, fence=3)
        await until(client, operation, lambda one: one.status is OperationStatus.EXECUTING)
        await client.revoke(str(uuid4()), "detach", volume_id, fence=4)
        # Once for what was taken away, once for what is put back.
        for _ in range(2):
            let_go()
        outdated = await ended(client, operation)
    assert code_of(outdated) == ("fenced", FaultKind.REFUSED)
    assert await world.changes("detachVolume") == []
    assert len(world.query("SELECT * FROM nbd_exports")) == 1
    assert len(list(world.nbd_dir.iterdir())) == 1, "its export is back"


async def test_the_same_order_from_a_newer_holder_is_its_own_from_then_on(world: World):
    busy, volume_id = [await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID) for _ in range(2)]
    await world.admin.put_settings(durations=FAST | {"detachVolume": 0.5})
    async with world.daemon(outstanding_per_vm=1) as client:
        await client.detach(busy)
        operation_id = str(uuid4())
        waiting = await client.detach(volume_id, request_id=operation_id, fence=3)
        await until(client, waiting, lambda one: one.place == 1)
        await client.detach(volume_id, request_id=operation_id, fence=4)
        done = await ended(client, waiting)
    assert (done.status, done.error) == (OperationStatus.COMPLETED, None)


async def behind(world: World, proxy: Proxy) -> None:
    world.api_url = f"http://127.0.0.1:{proxy.port}/client/api"
    world.cloudstack = {"expires_s": 3, "late_s": 1, "timeout_s": 0.5}


async def test_the_id_of_a_call_of_a_lost_fence_that_is_still_on_its_way_is_spent(world: World):
    """So that its end is told at once, and it is turned away when it comes in."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    simulator = int(world.api_url.split(":")[2].split("/")[0])
    async with running_proxy(simulator) as proxy:
        await behind(world, proxy)
        world.cloudstack["expires_s"] = 600
        async with world.daemon() as client:
            held = proxy.hold(DETACH)
            operation = await client.detach(volume_id, fence=3)
            await held.arrived()
            await client.revoke(str(uuid4()), "detach", volume_id, fence=4)
            after = await client.attach(volume_id, TEST_VM_ID, fence=4)
            outdated, done = await ended(client, operation), await ended(client, after)
            held.release()
            await held.delivered()
    assert code_of(outdated) == ("fenced", FaultKind.REFUSED)
    assert done.status is OperationStatus.COMPLETED
    assert await _holder(world, volume_id, proxy, simulator) == TEST_VM_ID


async def _holder(world: World, volume_id: str, proxy: Proxy, simulator: int) -> str | None:
    """Once nothing is at work on the volume any more."""
    async with CloudStack(Endpoint(world.api_url.replace(str(proxy.port), str(simulator)), KEY, SECRET)) as cloud:
        (volume,) = await cloud.list_volumes(ids=[volume_id])
        while volume.job_id is not None and volume.job_status == 0:
            (volume,) = await cloud.list_volumes(ids=[volume_id])
    return volume.vm_id


@pytest.mark.parametrize("arrives", [True, False])
async def test_a_call_that_is_still_on_its_way_is_outlasted_where_its_id_cannot_be_spent(world: World, arrives: bool):
    """Its end is not told, and nothing else is begun with the volume, before it can arrive no more."""
    await world.admin.put_settings(custom_job_id=False)
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    simulator = int(world.api_url.split(":")[2].split("/")[0])
    async with running_proxy(simulator) as proxy:
        await behind(world, proxy)
        async with world.daemon() as client:
            held = proxy.hold(DETACH)
            operation = await client.detach(volume_id, fence=3)
            await held.arrived()
            await client.revoke(str(uuid4()), "detach", volume_id, fence=4)
            after = await client.attach(volume_id, TEST_VM_ID, fence=4)
            await until(client, operation, lambda one: "no longer accept" in (one.waiting_for or ""))
            assert (await client.get_operation(after.id) or after).status is OperationStatus.PENDING
            if arrives:
                held.release()
                await held.delivered()
            outdated, done = await ended(client, operation), await ended(client, after)
            held.drop()
    assert done.status is OperationStatus.COMPLETED
    if arrives:
        assert outdated.status is OperationStatus.COMPLETED
    else:
        assert code_of(outdated) == ("outcome_unknown", FaultKind.FAILED)
    # A late detach has not taken the newer attachment away.
    assert await _holder(world, volume_id, proxy, simulator) == TEST_VM_ID


async def test_a_volume_that_stands_as_ordered_does_not_hide_a_call_on_its_way(world: World):
    """Somebody else has detached it; our own call is settled by sending it again, so that the late one is refused."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    simulator = int(world.api_url.split(":")[2].split("/")[0])
    async with CloudStack(Endpoint(world.api_url, KEY, SECRET)) as cloud, running_proxy(simulator) as proxy:
        await behind(world, proxy)
        async with world.daemon() as client:
            held = proxy.hold(DETACH)
            operation = await client.detach(volume_id)
            await held.arrived()
            await cloud.wait_job(await cloud.detach_volume(volume_id))
            assert (await ended(client, operation)).status is OperationStatus.COMPLETED
            assert (await ended(client, await client.attach(volume_id, TEST_VM_ID))).status is OperationStatus.COMPLETED
            held.release()
            await held.delivered()
        assert await _holder(world, volume_id, proxy, simulator) == TEST_VM_ID
