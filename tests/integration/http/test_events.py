"""Live events: each once, in order, resumable, ended by a stop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from oma.domain.events import EventType
from tests.integration.http.stubs import Api, served


@asynccontextmanager
async def following(api: Api, path: str, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    api.estate.subscribed.clear()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with api.client.get(api.url + path, headers=sent) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        await asyncio.wait_for(api.estate.subscribed.wait(), 5)
        yield response


async def read_block(response: aiohttp.ClientResponse) -> dict[str, str]:
    """The fields of the next event; comments stand under the empty name."""
    fields: dict[str, str] = {}
    async with asyncio.timeout(5):
        while line := (await response.content.readline()).decode().rstrip("\n"):
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


async def queued_job(api: Api) -> str:
    api.estate.add_vm("pgtest1")
    url = f"{api.url}/api/v1/failover/pgtest1/cleanup-failed"
    async with api.client.post(url, headers={"Prefer": "wait=0"}) as response:
        job_id: str = (await response.json())["job_id"]
        return job_id


async def test_a_job_is_followed_from_its_beginning(api: Api):
    job_id = await queued_job(api)
    async with following(api, f"/api/v1/jobs/{job_id}/events") as stream:
        assert "retry" in await read_block(stream)
        first = await read_block(stream)
        assert (first["id"], first["event"]) == ("1", "job_queued")
        api.estate.emit(EventType.STEP_STARTED, "another-job")
        api.estate.emit(EventType.STEP_STARTED, job_id, "Zeile\nmit Umbruch, с кириллицей")
        second = await read_block(stream)
        assert (second["id"], second["event"]) == ("3", "step_started")
        data = json.loads(second["data"])
        assert data["sentence"] == "Zeile\nmit Umbruch, с кириллицей"
        assert data["at"] == "2026-01-31T03:00:00.123456Z"


async def test_a_stream_goes_on_behind_the_last_event_seen(api: Api):
    for _ in range(3):
        api.estate.emit(EventType.NOTED, "job-1")
    async with following(api, "/api/v1/events", Last_Event_ID="1") as stream:
        await read_block(stream)
        api.estate.emit(EventType.NOTED, "job-1")
        assert [(await read_block(stream))["id"] for _ in range(3)] == ["2", "3", "4"]


async def test_without_a_last_event_a_stream_begins_now(api: Api):
    api.estate.emit(EventType.NOTED, "job-1")
    async with following(api, "/api/v1/events") as stream:
        await read_block(stream)
        api.estate.emit(EventType.NOTED, "job-2")
        assert (await read_block(stream))["id"] == "2"


async def test_a_silent_stream_has_a_heartbeat():
    async with served(heartbeat_s=0.01) as api, following(api, "/api/v1/events") as stream:
        await read_block(stream)
        assert (await read_block(stream)) == {"": "still here"}
        api.estate.emit(EventType.NOTED, "job-1")
        block: dict[str, str] = {}
        while "id" not in block:
            block = await read_block(stream)
        assert block["event"] == "noted"


async def test_a_stop_ends_the_stream_and_refuses_the_next(api: Api):
    async with following(api, "/api/v1/events") as stream:
        await read_block(stream)
        api.deps.stopping.set()
        api.estate.bus.close()
        assert await asyncio.wait_for(stream.content.read(), 5) == b""
    async with api.client.get(api.url + "/api/v1/events") as response:
        assert response.status == 503


async def test_a_reader_that_goes_away_is_forgotten(api: Api):
    async with following(api, "/api/v1/events") as stream:
        await read_block(stream)
        assert len(api.estate.bus._queues) == 1
    async with asyncio.timeout(5):
        while api.estate.bus._queues:
            api.estate.emit(EventType.NOTED, "job-1")
            await asyncio.sleep(0)
