"""The routes of holders: parse, one call, answer."""

from __future__ import annotations

import uuid
from typing import Any

from aiohttp import web

from appliance.web import as_json
from volume_daemon.holders.report import ProcessId
from volume_daemon.server.ending import HolderEnder
from volume_daemon.server.endings import EndOrder
from volume_daemon.server.holders import HolderWatch
from volume_daemon.server.refusals import invalid
from volume_daemon.server.requests import read_body, read_fence, read_uuid

END_FIELDS = frozenset({"holders", "reason"})
HOLDER_FIELDS = frozenset({"pid", "start_ticks", "started_at"})
LONGEST_REASON = 2000
MOST_HOLDERS = 64
LARGEST_PID = 2**22
LARGEST_TICKS = 2**63 - 1


class HolderRoutes:
    """Handlers under `/api/v1`."""

    def __init__(self, watch: HolderWatch, ender: HolderEnder) -> None:
        self._watch = watch
        self._ender = ender

    def add_to(self, app: web.Application, prefix: str) -> None:
        app.add_routes(
            [
                web.get(f"{prefix}/volumes/{{volume_id}}/holders", self.get_holders),
                web.post(f"{prefix}/volumes/{{volume_id}}/holders/end", self.end_holders),
            ]
        )

    async def get_holders(self, request: web.Request) -> web.Response:
        return _ok((await self._watch.report(_volume_id(request))).as_json())

    async def end_holders(self, request: web.Request) -> web.Response:
        return _ok((await self._ender.end(await read_end_order(request))).as_json())


async def read_end_order(request: web.Request) -> EndOrder:
    """Raises `Problem`."""
    body = await read_body(request, END_FIELDS)
    reason, holders = body.get("reason"), body.get("holders")
    if not isinstance(reason, str) or not reason.strip() or len(reason) > LONGEST_REASON:
        raise invalid("reason", "there is none, or it is too long", f"1 to {LONGEST_REASON} characters")
    if not isinstance(holders, list) or not 1 <= len(holders) <= MOST_HOLDERS:
        raise invalid("holders", "it is no list of holders", f"a list of 1 to {MOST_HOLDERS} with pid and start_ticks")
    key = request.headers.get("Idempotency-Key")
    return EndOrder(
        id=read_uuid("Idempotency-Key", key) if key is not None else str(uuid.uuid4()),
        volume_id=_volume_id(request),
        holders=tuple(_read_holder(one) for one in holders),
        reason=reason.strip(),
        fence=read_fence(request),
    )


def _read_holder(value: object) -> ProcessId:
    """`started_at` may come along, as it was seen; `start_ticks` is what tells processes apart."""
    if not isinstance(value, dict) or set(value) - HOLDER_FIELDS:
        raise invalid("holders", f"{repr(value)[:120]} is no holder", "pid and start_ticks as seen")
    pid = _read_int("holders.pid", value.get("pid"), 2, LARGEST_PID)
    return ProcessId(pid, _read_int("holders.start_ticks", value.get("start_ticks"), 0, LARGEST_TICKS))


def _read_int(field: str, value: object, least: int, most: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise invalid(field, f"{repr(value)[:120]} is not allowed", f"a whole number from {least} to {most}, as seen")


def _volume_id(request: web.Request) -> str:
    return read_uuid("volume_id", request.match_info["volume_id"])


def _ok(body: dict[str, Any]) -> web.Response:
    return web.Response(text=as_json(body), content_type="application/json")
