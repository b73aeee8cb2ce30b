"""Answers that ask for patience, as the client and the adapter tell them: throttled, not able yet, not knowing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from oma.adapters.volume_daemon import VolumeDaemonVolumes
from oma.ports import Fault, UpstreamError
from volume_daemon.client import VolumeDaemonClient
from volume_daemon.errors import ErrorKind, VolumeDaemonError

VOLUME = "b3bb9310-1b59-4f62-97e8-cefffdfe3804"


class Stub:
    """Answers every request in the same way."""

    status = 200
    body: object = None
    retry_after: str | None = None
    calls = 0

    async def answer(self, _: web.Request) -> web.Response:
        self.calls += 1
        headers = {"Retry-After": self.retry_after} if self.retry_after else {}
        return web.Response(status=self.status, text=json.dumps(self.body), headers=headers)


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
async def volumes(stub: Stub) -> AsyncIterator[VolumeDaemonVolumes]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stub.answer)
    async with TestServer(app) as server, VolumeDaemonClient(str(server.make_url("/"))) as client:
        yield VolumeDaemonVolumes(client)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((429, None, "7"), (Fault.NOT_SENT, "throttled", 7.0)),
        ((429, {"code": "anything"}, None), (Fault.NOT_SENT, "throttled", None)),
        ((503, {"code": "shutting_down", "detail": "soon"}, "3"), (Fault.BROKEN_ANSWER, "shutting_down", 3.0)),
        (
            (503, {"code": "database_unavailable", "detail": "x"}, None),
            (Fault.BROKEN_ANSWER, "database_unavailable", None),
        ),
        ((503, {"code": "start_failed", "detail": "x"}, None), (Fault.BROKEN_ANSWER, "start_failed", None)),
        ((503, {"code": "journal_in_use", "detail": "x"}, None), (Fault.BROKEN_ANSWER, "journal_in_use", None)),
        ((503, {"code": "state_unknown", "detail": "x"}, None), (Fault.FAILED, "state_unknown", None)),
        ((503, None, "11"), (Fault.BROKEN_ANSWER, "volume_daemon_error", 11.0)),
        ((502, None, "Wed, 21 Oct 2026 07:28:00 GMT"), (Fault.BROKEN_ANSWER, "volume_daemon_error", None)),
        ((409, {"code": "fenced", "detail": "x"}, None), (Fault.REFUSED, "fenced", None)),
    ],
)
async def test_what_an_answer_says_of_trying_again(
    stub: Stub,
    volumes: VolumeDaemonVolumes,
    answer: tuple[int, object, str | None],
    told: tuple[Fault, str, float | None],
) -> None:
    stub.status, stub.body, stub.retry_after = answer
    with pytest.raises(UpstreamError) as raised:
        await volumes.submit_detach(VOLUME, request_id="a", fence=1)
    error = raised.value
    assert (error.fault, error.upstream.code, error.retry_after_s) == told
    assert stub.calls == 1, "the client itself never tries again"


async def test_a_daemon_that_is_not_ready_is_not_there(stub: Stub, volumes: VolumeDaemonVolumes) -> None:
    health = {"status": "degraded", "detail": "start: no credentials", "dependencies": {}, "ready": False}
    stub.body = health
    with pytest.raises(UpstreamError, match="no credentials"):
        await volumes.check()
    stub.body = {**health, "ready": True}
    assert "degraded" in await volumes.check()


async def test_a_delete_is_sent_once_and_its_first_error_stands() -> None:
    """aiohttp sends one again by itself, and would tell that the second did not arrive anywhere."""
    requests: list[bytes] = []

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n"))
        server.close()
        writer.close()

    server = await asyncio.start_server(break_off, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with VolumeDaemonClient(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(VolumeDaemonError) as lost:
            await client.delete(VOLUME)
    assert lost.value.kind is ErrorKind.NO_ANSWER
    assert len(requests) == 1
