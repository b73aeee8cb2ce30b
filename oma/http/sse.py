"""Live Server-Sent Events (WHATWG HTML, 9.2), resumable by `Last-Event-ID`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Final, cast

from aiohttp import web

from appliance.web import CORRELATION_HEADER, as_json, correlation_id_of
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event
from oma.http.described import answers_text, in_header, in_path, in_query, operation
from oma.http.query import check_names, read_seq
from oma.http.schemas import event_entry
from oma.http.site import Route, Site, site_of
from oma.service import queries

RECONNECT_MS: Final = 2000
HEARTBEAT: Final = b": still here\n\n"


async def follow_all(request: web.Request) -> web.StreamResponse:
    """From now on, or after the event that was seen last."""
    check_names(request, ("last_event_id",))
    return await stream(request, job_id=None, after_seq=read_seq(request))


async def follow_job(request: web.Request) -> web.StreamResponse:
    """From the job's first event, or after the one that was seen last."""
    check_names(request, ("last_event_id",))
    job = await queries.get_job(site_of(request).deps, request.match_info["job_id"])
    return await stream(request, job_id=job.id, after_seq=read_seq(request) or 0)


async def stream(request: web.Request, job_id: str | None, after_seq: int | None) -> web.StreamResponse:
    """Writes events until the daemon stops or the reader goes away; a silent stream gets a heartbeat."""
    site = site_of(request)
    if site.deps.stopping.is_set():
        raise OmaError(Code.SHUTTING_DOWN, "The daemon is stopping; connect again in a moment.")
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store"}
    )
    response.headers[CORRELATION_HEADER] = correlation_id_of(request)
    with suppress(ConnectionError):
        await response.prepare(request)
        await response.write(f"retry: {RECONNECT_MS}\n\n".encode())
        await _write_events(site, response, job_id, after_seq)
        await response.write_eof()
    return response


async def _write_events(site: Site, response: web.StreamResponse, job_id: str | None, after_seq: int | None) -> None:
    # `stream_events` is an async generator: closing it ends its subscription at once.
    events = cast("AsyncGenerator[Event, None]", queries.stream_events(site.deps, job_id, after_seq))
    async with aclosing(events):
        async for event in with_heartbeats(events, site.heartbeat_s):
            await response.write(HEARTBEAT if event is None else as_sse(event))


async def with_heartbeats(events: AsyncIterator[Event], heartbeat_s: float) -> AsyncIterator[Event | None]:
    """The events, and None whenever none came for `heartbeat_s`."""
    waiting = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait({waiting}, timeout=heartbeat_s)
            if not done:
                yield None
                continue
            event = waiting.result()
            if event is None:
                return
            waiting = asyncio.ensure_future(anext(events, None))
            yield event
    finally:
        waiting.cancel()
        await asyncio.wait({waiting})


def as_sse(event: Event) -> bytes:
    return f"id: {event.seq}\nevent: {event.type.value}\ndata: {as_json(event_entry(event))}\n\n".encode()


RESUME: Final = (
    in_header("Last-Event-ID", "The id of the event that was seen last; the stream goes on behind it."),
    in_query("last_event_id", "The same, for readers that can't send the header."),
)
STREAM: Final = answers_text("text/event-stream", "id, event and data (an Event as JSON); comments as heartbeats.")

ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/jobs/{job_id}/events",
        follow_job,
        operation(
            "followJob",
            "A job's events, live, from its beginning",
            {200: STREAM},
            tag="events",
            parameters=(in_path("job_id", "The job's id."), *RESUME),
            problems=(404, 422, 503),
        ),
    ),
    Route(
        "GET",
        "/api/v1/events",
        follow_all,
        operation(
            "followAll",
            "All events, live, from now on",
            {200: STREAM},
            tag="events",
            parameters=RESUME,
            problems=(422, 503),
        ),
    ),
)
