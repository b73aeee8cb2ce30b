"""6-safety 3: who holds a device on the OMA is told, and only a driver injection on exactly it is ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.integration.volume_daemon.conftest import OMA_ID, World
from tests.unit.volume_daemon.children import READY, child, hung_injection, id_of, write_script
from tests.unit.volume_daemon.proc_tree import ProcTree
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.errors import ErrorKind, VolumeDaemonError
from volume_daemon.holders.ended import EndOutcome
from volume_daemon.holders.report import HolderReport, HolderState, ProcessId

SEEING = {"holder_scope": "readable"}
"""Some machines hide their first process even from root; what the tests start is readable for them."""


@pytest.fixture
async def volume_id(world: World) -> str:
    return await world.add_volume(str(uuid4()), vm_id=OMA_ID)


def device_of(world: World, volume_id: str) -> Path:
    return world.device_root / f"virtio-{volume_id.replace('-', '')[:20]}"


@asynccontextmanager
async def running(process: AbstractContextManager[Popen[str]]) -> AsyncIterator[Popen[str]]:
    entered = await asyncio.to_thread(process.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(process.__exit__, None, None, None)


@pytest.fixture
async def injection(world: World, volume_id: str) -> AsyncIterator[Popen[str]]:
    async with running(child(hung_injection(world.path), device_of(world, volume_id))) as process:
        yield process


async def held(client: VolumeDaemonClient, volume_id: str) -> HolderReport:
    report = await client.holders(volume_id)
    assert report is not None
    return report


async def test_a_hung_injection_is_shown_ended_and_gone(world: World, volume_id: str, injection: Popen[str]):
    async with world.daemon(**SEEING) as client:
        report = await held(client, volume_id)
        assert (report.state, report.proof.ok, report.unread) == (HolderState.HELD, True, ())
        assert {one.tree for one in report.holders} == {id_of(injection)}
        assert all(one.endable for one in report.holders)
        seen = report.holders[0].process
        assert seen is not None
        done = await client.end_holders(volume_id, [seen], "hung since midnight")
        assert [one.outcome for one in done.ended] == [EndOutcome.TERMINATED]
        assert len(done.ended[0].members) == 2
        assert (done.remaining.state, done.remaining.holders) == (HolderState.NONE, ())
    (row,) = world.query("SELECT * FROM volume_daemon_holder_ends")
    assert (row["request_id"], row["volume_id"], row["reason"]) == (done.request_id, volume_id, "hung since midnight")
    assert '"terminated"' in row["outcome"]
    assert row["ended_at"] >= row["asked_at"]


async def test_what_ignores_term_is_killed(world: World, volume_id: str):
    script = hung_injection(world.path, ignores_term=True)
    async with (
        running(child(script, device_of(world, volume_id))) as process,
        world.daemon(**SEEING, holder_term_s=0.1) as client,
    ):
        done = await client.end_holders(volume_id, [id_of(process)], "hung")
        assert [one.outcome for one in done.ended] == [EndOutcome.KILLED]
        assert done.remaining.state is HolderState.NONE


async def test_the_same_request_again_ends_nothing_more(world: World, volume_id: str, injection: Popen[str]):
    seen, key = id_of(injection), str(uuid4())
    async with world.daemon(**SEEING) as client:
        first = await client.end_holders(volume_id, [seen], "hung", request_id=key)
        again = await client.end_holders(volume_id, [seen], "hung", request_id=key)
        assert again.ended == first.ended
        # Under a key of its own the process is found gone.
        other = await client.end_holders(volume_id, [seen], "hung")
        assert [one.outcome for one in other.ended] == [EndOutcome.GONE]
        with pytest.raises(VolumeDaemonError) as reused:
            await client.end_holders(volume_id, [seen], "another reason", request_id=key)
        assert reused.value.code == "idempotency_key_reused"


async def refused(client: VolumeDaemonClient, volume_id: str, seen: ProcessId, **fields: Any) -> VolumeDaemonError:
    with pytest.raises(VolumeDaemonError) as error:
        await client.end_holders(volume_id, [seen], "hung", **fields)
    assert (error.value.status, error.value.kind) == (409, ErrorKind.REFUSED)
    return error.value


async def test_another_start_time_and_a_lower_fence_end_nothing(world: World, volume_id: str, injection: Popen[str]):
    seen = id_of(injection)
    async with world.daemon(**SEEING) as client:
        changed = await refused(client, volume_id, ProcessId(seen.pid, seen.start_ticks + 1))
        assert changed.code == "holder_changed"
        free = await world.add_volume(str(uuid4()), vm_id=OMA_ID)
        assert (await refused(client, free, seen)).code == "holder_refused"
        with world.engine.begin() as connection:
            connection.exec_driver_sql(
                "INSERT INTO volume_daemon_fences (volume_id, fence, updated_at) VALUES (?, 7, '2026-01-01 00:00:00')",
                (volume_id,),
            )
        assert (await refused(client, volume_id, seen, fence=6)).code == "fenced"
        assert (await held(client, volume_id)).state is HolderState.HELD
    assert injection.poll() is None
    assert world.query("SELECT * FROM volume_daemon_holder_ends") == []


@pytest.mark.parametrize("name", ["backup.sh", "nbd-server"])
async def test_an_unknown_process_and_an_nbd_server_are_never_ended(world: World, volume_id: str, name: str):
    script = write_script(world.path / name, ['exec 3<>"$1"', f"echo {READY}", "read"])
    async with running(child(script, device_of(world, volume_id))) as process, world.daemon(**SEEING) as client:
        problem = await refused(client, volume_id, id_of(process))
        assert problem.code == "holder_refused"
        assert ("NBD" in problem.text) is (name == "nbd-server")
        assert process.poll() is None


async def test_an_injection_that_also_has_another_volume_is_left_alone(world: World, volume_id: str):
    other = device_of(world, await world.add_volume(str(uuid4()), vm_id=OMA_ID))
    lines = ['exec 3<>"$1" 4<>"$2"', f"echo {READY}", "read"]
    script = write_script(world.path / "inject-virtio-drivers.sh", lines)
    async with running(child(script, device_of(world, volume_id), other)) as process, world.daemon(**SEEING) as client:
        problem = await refused(client, volume_id, id_of(process))
        assert problem.code == "holder_refused"
        assert other.name in problem.text
        assert process.poll() is None


async def test_one_refusal_refuses_all(world: World, volume_id: str, injection: Popen[str]):
    script = write_script(world.path / "backup.sh", ['exec 3<>"$1"', f"echo {READY}", "read"])
    async with running(child(script, device_of(world, volume_id))) as other, world.daemon(**SEEING) as client:
        with pytest.raises(VolumeDaemonError):
            await client.end_holders(volume_id, [id_of(injection), id_of(other)], "hung")
    assert injection.poll() is None


async def test_a_scan_that_is_not_complete_is_unknown_and_ends_nothing(world: World, volume_id: str):
    tree = await asyncio.to_thread(ProcTree(world.path / "prepared").prepare)
    await asyncio.to_thread(tree.add_process, 77)
    await asyncio.to_thread(tree.make_unreadable, tree.proc / "77" / "fd")
    async with world.daemon(proc_root=tree.proc, sys_root=tree.sys) as client:
        report = await held(client, volume_id)
        assert (report.state, report.proof.ok) == (HolderState.UNKNOWN, False)
        assert "process 77" in report.unread[0]
        assert (await refused(client, volume_id, ProcessId(77, 100))).code == "state_unknown"


async def test_no_device_and_bad_requests(world: World, volume_id: str):
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(world.daemon(**SEEING))
        assert await client.holders(str(uuid4())) is None
        http = await stack.enter_async_context(aiohttp.ClientSession(client.base_url))
        holder = {"pid": 77, "start_ticks": 1}
        for body in (
            {},
            {"holders": [holder]},
            {"holders": [holder], "reason": "  "},
            {"holders": [holder], "reason": "x" * 3_000},
            {"holders": [], "reason": "hung"},
            {"holders": [{"pid": 77}], "reason": "hung"},
            {"holders": [{"pid": 1, "start_ticks": 1}], "reason": "hung"},
            {"holders": [{"pid": True, "start_ticks": 1}], "reason": "hung"},
            {"holders": [holder | {"signal": 9}], "reason": "hung"},
            {"holders": [holder], "reason": "hung", "force": True},
        ):
            async with http.post(f"/api/v1/volumes/{volume_id}/holders/end", json=body) as answer:
                assert (answer.status, (await answer.json())["code"]) == (422, "invalid_request"), body


async def test_an_order_whose_outcome_was_lost_is_looked_into_again(
    world: World, volume_id: str, injection: Popen[str]
):
    """A crash between the first signal and the outcome: the row stands without one, and the same request goes on."""
    key, seen = str(uuid4()), id_of(injection)
    async with world.daemon(**SEEING) as client:
        await client.end_holders(volume_id, [seen], "hung", request_id=key)
        with world.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE volume_daemon_holder_ends SET outcome = NULL, ended_at = NULL")
        again = await client.end_holders(volume_id, [seen], "hung", request_id=key)
    assert [one.outcome for one in again.ended] == [EndOutcome.GONE]
    (row,) = world.query("SELECT * FROM volume_daemon_holder_ends")
    assert '"gone"' in row["outcome"]


async def test_a_daemon_of_the_first_generation_is_told_from_one_that_shows_no_device():
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=404, text="404 page not found\n")

    app = web.Application()
    app.router.add_route("*", "/{anything:.*}", answer)
    async with TestServer(app) as server, VolumeDaemonClient(str(server.make_url("/"))) as client:
        with pytest.raises(VolumeDaemonError) as old:
            await client.holders(str(uuid4()))
    assert (old.value.kind, old.value.code) == (ErrorKind.REFUSED, "not_found")
