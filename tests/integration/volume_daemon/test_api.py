from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import aiohttp
import pytest
from sqlalchemy import insert

from database.tables import device_mappings
from tests.integration.volume_daemon.conftest import BIN, FAST, OMA_ID, SIZE, TEST_VM_ID, World, ended
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.errors import ErrorKind, VolumeDaemonError
from volume_daemon.models import OperationStatus


@asynccontextmanager
async def session(client: VolumeDaemonClient) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(client.base_url) as opened:
        yield opened


async def test_the_same_key_is_the_same_operation_and_cloudstacks_job(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    key = str(uuid4())
    async with world.daemon() as client:
        one, two = await asyncio.gather(*(client.attach(volume_id, OMA_ID, request_id=key) for _ in range(2)))
        assert one.id == two.id == key
        done = await ended(client, one)
        assert (await client.attach(volume_id, OMA_ID, request_id=key)) == done
        with pytest.raises(VolumeDaemonError) as reused:
            await client.attach(volume_id, TEST_VM_ID, request_id=key)
        assert (reused.value.status, reused.value.code) == (422, "idempotency_key_reused")
    (call,) = await world.changes("attachVolume")
    assert call["params"]["customjobid"] == key


async def test_a_lower_fence_than_the_volume_has_seen_is_refused_also_after_a_restart(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon() as client:
        await ended(client, await client.attach(volume_id, OMA_ID, fence=7))
    async with world.daemon() as client:
        with pytest.raises(VolumeDaemonError) as fenced:
            await client.detach(volume_id, fence=6)
        assert (fenced.value.status, fenced.value.code, fenced.value.kind) == (409, "fenced", ErrorKind.REFUSED)
        # Clients that send none work as before, and other volumes are not concerned.
        await ended(client, await client.detach(volume_id))
        await ended(client, await client.attach(await world.add_volume(str(uuid4())), OMA_ID, fence=1))


async def test_what_waits_is_not_sent_once_a_newer_holder_has_spoken(world: World):
    await world.admin.put_settings(durations=FAST | {"attachVolume": 0.5})
    blocker, volume_id = [await world.add_volume(str(uuid4())) for _ in range(2)]
    async with world.daemon(outstanding_per_vm=1) as client:
        first = await client.attach(blocker, OMA_ID)
        waiting = await client.attach(volume_id, OMA_ID, fence=1)
        newer = await client.detach(volume_id, fence=2)
        await ended(client, first)
        stopped = await ended(client, waiting)
        assert stopped.error_detail is not None
        assert stopped.error_detail.code == "fenced"
        assert (await ended(client, newer)).status is OperationStatus.COMPLETED
    assert [call["params"]["id"] for call in await world.changes("attachVolume")] == [blocker]


async def test_two_are_outstanding_the_rest_wait_in_turn_and_can_be_taken_back(world: World):
    await world.admin.put_settings(durations=FAST | {"attachVolume": 0.5})
    volumes = [await world.add_volume(str(uuid4())) for _ in range(6)]
    async with world.daemon() as client:
        operations = [await client.attach(volume_id, OMA_ID) for volume_id in volumes]
        while (await client.health())["operations"]["waiting"] < 4:
            pass
        assert (await client.health())["operations"]["outstanding"] == 2
        waiting = [one for one in await client.list_operations(status="pending") if one.place]
        assert sorted(one.place or 0 for one in waiting) == [1, 2, 3, 4]
        last = next(one for one in waiting if one.place == 4)
        taken_back = await client.cancel(last.id)
        assert taken_back.status is OperationStatus.CANCELLED
        assert (await client.cancel(last.id)).status is OperationStatus.CANCELLED
        ends = [await ended(client, operation) for operation in operations]
        with pytest.raises(VolumeDaemonError) as started:
            await client.cancel(operations[0].id)
        assert started.value.code == "operation_started"
    assert sorted(one.status for one in ends) == ["cancelled"] + ["completed"] * 5
    assert len(await world.changes("attachVolume")) == 5


async def test_operations_of_one_volume_run_one_after_the_other(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon() as client:
        operations = [
            await client.attach(volume_id, OMA_ID),
            await client.detach(volume_id),
            await client.attach(volume_id, TEST_VM_ID),
        ]
        for operation in operations:
            assert (await ended(client, operation)).status is OperationStatus.COMPLETED
        mapping = await client.find_mapping(volume_id)
        assert mapping is not None
        assert mapping.vm_id == TEST_VM_ID


async def test_create_and_delete(world: World):
    async with world.daemon() as client:
        state = await world.admin.state()
        offering, zone = await offering_and_zone(world)
        created = await ended(client, await client.create("new", 2 * 1024**3, offering, zone, request_id=str(uuid4())))
        assert (created.status, created.error) == (OperationStatus.COMPLETED, None)
        assert created.volume_id is not None
        assert created.volume_id not in str(state["volumes"])
        await ended(client, await client.attach(created.volume_id, OMA_ID))
        held = await ended(client, await client.delete(created.volume_id))
        assert held.error_detail is not None
        assert held.error_detail.code == "volume_attached"
        await ended(client, await client.detach(created.volume_id))
        gone = await ended(client, await client.delete(created.volume_id))
        assert gone.status is OperationStatus.COMPLETED
        assert [one.type for one in await client.list_operations(volume_id=created.volume_id, limit=2)] == [
            "delete",
            "detach",
        ]


async def offering_and_zone(world: World) -> tuple[str, str]:
    from ossea.client import CloudStack  # noqa: PLC0415
    from ossea.credentials import Endpoint  # noqa: PLC0415

    async with CloudStack(Endpoint(world.api_url, "key", "secret")) as cloud:
        offerings = [one.id for one in await cloud.list_disk_offerings() if one.is_customized]
        return offerings[0], (await cloud.list_zones())[0].id


async def test_where_volumes_and_devices_are(world: World):
    at_home = await world.add_volume(str(uuid4()), vm_id=OMA_ID)
    away = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    (world.path / "product_uuid").write_text(OMA_ID.upper())
    async with world.daemon() as client, session(client) as http:
        devices = await client.scan_devices()
        assert devices.product_uuid == OMA_ID
        serial = at_home.replace("-", "")[:20]
        (link,) = devices.links
        assert (link.serial, link.size_bytes) == (serial, SIZE)
        for vm_id, volume_id, mode in ((OMA_ID, at_home, "oma"), (TEST_VM_ID, away, "failover")):
            async with http.get(f"/api/v1/vms/{vm_id}/volumes") as answer:
                (found,) = (await answer.json())["volumes"]
            assert (found["volume_uuid"], found["operation_mode"]) == (volume_id, mode)
        async with http.get("/api/v1/devices") as answer:
            (shown,) = (await answer.json())["links"]
        assert (shown["size"], shown["size_bytes"]) == (SIZE, SIZE)
        for path in (link.link, link.link.lstrip("/"), f"virtio-{serial}"):
            async with http.get(f"/api/v1/devices/{path}/volume") as answer:
                assert (answer.status, (await answer.json())["volume_uuid"]) == (200, at_home)
        async with http.get("/api/v1/devices/%2Fdev%2Fvdz/volume") as answer:
            assert (answer.status, (await answer.json())["code"]) == (404, "device_not_found")
        async with http.get(f"/api/v1/volumes/{at_home}") as answer:
            described = await answer.json()
        assert (described["cloudstack"]["vm_id"], described["linux"]["state"]) == (OMA_ID, "detected")
        assert described["mapping"] is described["last_operation"] is None
        async with http.get(f"/api/v1/volumes/{uuid4()}") as answer:
            assert (answer.status, (await answer.json())["code"]) == (404, "volume_not_found")


async def test_a_device_path_is_found_in_the_mapping_also_without_its_slash(world: World):
    """`/devices/dev/vdb/volume` is what clients write."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=TEST_VM_ID)
    with world.engine.begin() as connection:
        connection.execute(
            insert(device_mappings).values(
                id="m-1", volume_uuid=volume_id, vm_id=TEST_VM_ID, device_path="/dev/vdb", operation_mode="failover"
            )
        )
    async with world.daemon() as client, session(client) as http:
        for path in ("dev/vdb", "%2Fdev%2Fvdb"):
            async with http.get(f"/api/v1/devices/{path}/volume") as answer:
                assert (answer.status, (await answer.json()).get("volume_uuid")) == (200, volume_id), path


BAD_REQUESTS = [
    ("POST", "/volumes/not-a-uuid/detach", {}, None, 422, "invalid_request", "volume_id"),
    ("POST", "/volumes/{v}/attach", {}, "{}", 422, "invalid_request", "vm_id"),
    ("POST", "/volumes/{v}/attach", {}, '{"vm_id": 7}', 422, "invalid_request", "vm_id"),
    ("POST", "/volumes/{v}/attach", {}, '{"vm_id": "{v}", "force": true}', 422, "invalid_request", "force"),
    ("POST", "/volumes/{v}/attach", {}, '{"vm_id": "{v}", "export": 1}', 422, "invalid_request", "export"),
    ("POST", "/volumes/{v}/attach", {}, '{"vm_id', 422, "invalid_request", "body"),
    ("POST", "/volumes/{v}/attach", {}, "[" * 20000, 422, "invalid_request", "body"),
    ("POST", "/volumes/{v}/attach", {}, "[]", 422, "invalid_request", "body"),
    ("POST", "/volumes/{v}/attach", {}, r'{"\ud800": 1}', 422, "invalid_request", "body"),
    ("POST", "/volumes/{v}/attach", {}, r'{"vm_id": "{v}", "export": ["\udfff"]}', 422, "invalid_request", "body"),
    ("POST", "/volumes/{v}/detach", {"Idempotency-Key": "x"}, None, 422, "invalid_request", "Idempotency-Key"),
    ("POST", "/volumes/{v}/detach", {"X-Fence": "-1"}, None, 422, "invalid_request", "X-Fence"),
    ("POST", "/volumes/{v}/detach", {"X-Fence": "9" * 30}, None, 422, "invalid_request", "X-Fence"),
    ("POST", "/volumes", {}, '{"name": "x", "size": 0}', 422, "invalid_request", "size"),
    ("GET", "/operations?status=done", {}, None, 422, "invalid_request", "status"),
    ("GET", "/operations?limit=0", {}, None, 422, "invalid_request", "limit"),
    ("GET", "/operations?color=red", {}, None, 422, "invalid_request", "color"),
    ("GET", "/operations/{v}?wait=soon", {}, None, 422, "invalid_request", "wait"),
    ("GET", "/operations/{v}?wait=nan", {}, None, 422, "invalid_request", "wait"),
    ("GET", "/operations/{v}", {}, None, 404, "operation_not_found", None),
    ("POST", "/volumes/{v}/detach", {"Origin": "http://evil.example"}, None, 403, "cross_site", None),
    ("PUT", "/volumes", {}, None, 405, "method_not_allowed", None),
    ("GET", "/nothing", {}, None, 404, "not_found", None),
]
"""Method, path, headers, body; status, code, field."""


async def test_bad_input_is_told_by_its_field_and_changes_nothing(world: World):
    volume_id = str(uuid4())
    async with world.daemon() as client, session(client) as http:
        for method, path, headers, body, *told in BAD_REQUESTS:
            data = body.replace("{v}", volume_id) if body else None
            url = f"/api/v1{path.replace('{v}', volume_id)}"
            async with http.request(method, url, headers=headers, data=data) as answer:
                found = await answer.json(content_type="application/problem+json")
            assert [answer.status, found["code"], found.get("field")] == told, (method, path, body)
            assert found["detail"]
        assert await client.list_operations() == []


async def test_figures_and_health(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon() as client, session(client) as http:
        await ended(client, await client.attach(volume_id, OMA_ID))
        async with http.get("/metrics") as answer:
            text = await answer.text()
        assert 'volume_daemon_operations_total{result="completed",type="attach"} 1.0' in text
        assert 'volume_daemon_cloudstack_requests_total{command="attachVolume",result="ok"} 1.0' in text
        async with http.get("/api/v1/metrics") as answer:
            assert (await answer.json())["volume_daemon_queue_outstanding"] == 0
        health = await client.health()
        assert (health["status"], health["operations"]["open"]) == ("healthy", 0)


async def test_a_stop_answers_who_waits_and_leaves_operations_to_the_next_start(world: World):
    await world.admin.put_settings(durations=FAST | {"attachVolume": 2.0})
    volume_id = await world.add_volume(str(uuid4()))
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(world.path / "notify"))
    manager.setblocking(False)
    world.environment = {"NOTIFY_SOCKET": str(world.path / "notify")}
    daemon = await world.process()
    loop = asyncio.get_running_loop()
    assert b"READY=1" in await loop.sock_recv(manager, 4096)
    operation = await daemon.client.attach(volume_id, OMA_ID)
    while not await world.changes("attachVolume"):
        pass
    poll = asyncio.create_task(daemon.client.get_operation(operation.id, 60))
    # Answered after the poll has arrived.
    await daemon.client.health()
    daemon.process.send_signal(signal.SIGTERM)
    assert b"STOPPING=1" in await loop.sock_recv(manager, 4096)
    waited = await poll
    assert waited is not None
    assert waited.status is OperationStatus.EXECUTING
    assert await asyncio.wait_for(daemon.stop(), 5) == 0
    manager.close()
    world.environment = {}
    async with world.daemon() as client:
        assert (await ended(client, operation)).status is OperationStatus.COMPLETED
    assert len(await world.changes("attachVolume")) == 1


async def test_bad_settings_are_told_in_a_sentence(world: World):
    process = await asyncio.create_subprocess_exec(
        str(BIN / "volume-daemon"),
        "serve",
        "--config",
        "/nonexistent/oma.toml",
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"/nonexistent/oma.toml" in errors
    assert b"Traceback" not in errors
