"""A scripted stand-in for a CloudStack management server: the wire protocol only, no model behind it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from ossea.credentials import Endpoint

KEY = "the-api-key"
SECRET = "the-secret-key"
JAVA_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-*_")
UNKNOWN = (
    "Unable to execute API command {command} due to invalid value. Invalid parameter {name} value={value} due to"
    " incorrect long value format, or entity does not exist or due to incorrect parameter annotation for the field"
)
LISTS = {
    "listVolumes": "volume",
    "listSnapshots": "snapshot",
    "listVirtualMachines": "virtualmachine",
    "listVMSnapshot": "vmSnapshot",
    "listTags": "tag",
    "listZones": "zone",
    "listDiskOfferings": "diskoffering",
    "listAsyncJobs": "asyncjobs",
}


def java_encode(value: str) -> str:
    """`URLEncoder.encode(value, "UTF-8").replace("+", "%20")`."""
    return "".join(c if c in JAVA_SAFE else "".join(f"%{byte:02X}" for byte in c.encode()) for c in value)


def java_signature(params: dict[str, str], secret: str) -> str:
    pairs = [f"{name}={java_encode(params[name])}" for name in sorted(params) if name.lower() != "signature"]
    digest = hmac.new(secret.encode(), "&".join(pairs).lower().encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


@dataclass
class Answer:
    """What to answer instead of the ordinary thing."""

    status: int = 200
    body: Any = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


class Cut:
    """The connection breaks after the request was received."""


class Hang:
    """No answer until the stub is closed."""


class Held:
    """The ordinary answer, once `release` is set."""

    def __init__(self) -> None:
        self.release = asyncio.Event()


class Drip:
    """Headers, then a byte now and then for ever."""


def error(code: int, text: str, cserrorcode: int | None = 9999, command: str = "x") -> Answer:
    content = {"uuidList": [], "errorcode": code, "cserrorcode": cserrorcode, "errortext": text}
    return Answer(code, {f"{command}response": {k: v for k, v in content.items() if v is not None}})


Reply = Answer | Cut | Hang | Held | Drip | Callable[[dict[str, str]], Any]


@dataclass
class Stub:
    """`scripted[command]` holds replies that are used up first; then the tables and jobs answer."""

    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    scripted: dict[str, list[Reply]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    heard: asyncio.Condition = field(default_factory=asyncio.Condition)
    skew: timedelta = timedelta()
    sends_date: bool = True
    page_limit: int = 500
    honours_ids: bool = True
    ignores_ids: bool = False
    lists_pending_only: bool = False
    lists_nothing: bool = False
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    @property
    def server_now(self) -> datetime:
        return datetime.now(UTC) + self.skew

    def endpoint(self, **changes: Any) -> Endpoint:
        return Endpoint(**{"url": self.url, "key": KEY, "secret": SECRET, **changes})

    def script(self, command: str, *replies: Reply) -> None:
        self.scripted.setdefault(command, []).extend(replies)

    def sent(self, command: str) -> list[dict[str, str]]:
        return [params for name, params in self.calls if name == command]

    def count(self, *commands: str) -> int:
        return sum(name in commands for name, _ in self.calls)

    async def until(self, true: Callable[[], bool]) -> None:
        """Waits, however long, until something heard makes it true."""
        async with self.heard:
            await self.heard.wait_for(true)

    def add_job(self, job_id: str | None = None, **fields: Any) -> str:
        job_id = job_id or str(uuid.uuid4())
        self.jobs[job_id] = {"jobid": job_id, "jobstatus": 0, "cmd": "org.apache.AttachVolumeCmd", **fields}
        return job_id

    def succeed(self, job_id: str) -> None:
        self.jobs[job_id].update(jobstatus=1, jobresultcode=0, jobresult={"success": True})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = request.query_string if request.method == "GET" else await request.text()
        params = dict(parse_qsl(raw, keep_blank_values=True))
        command = params.get("command", "")
        async with self.heard:
            self.calls.append((command, params))
            self.heard.notify_all()
        reply = self._refusal(params) or self._next(command, params)
        if isinstance(reply, Cut):
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if isinstance(reply, Hang):
            await self.closing.wait()
            return web.Response()
        if isinstance(reply, Held):
            await reply.release.wait()
            reply = self._ordinary(params)
        if isinstance(reply, Drip):
            return await self._drip(request)
        return self._render(command, reply)

    async def _drip(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while not self.closing.is_set():
            try:
                await response.write(b" ")
                async with asyncio.timeout(0.02):
                    await self.closing.wait()
            except (TimeoutError, ConnectionError):
                if request.transport is None or request.transport.is_closing():
                    break
        return response

    def _render(self, command: str, reply: Answer) -> web.Response:
        headers = {"Date": format_datetime(self.server_now, usegmt=True), **reply.headers}
        if reply.body is None or isinstance(reply.body, str):
            body = reply.body or ""
        else:
            content = reply.body
            if list(content) == ["xresponse"]:
                content = {f"{command.lower()}response": content["xresponse"]}
            body = json.dumps(content)
        response = web.Response(status=reply.status, text=body, content_type=reply.content_type, headers=headers)
        if not self.sends_date:
            response.headers["Date"] = "-"
        return response

    def _refusal(self, params: dict[str, str]) -> Answer | None:
        """As `ApiServer.verifyRequest`: version 3 needs `expires` in the future; then the signature."""
        refused = error(401, "unable to verify user credentials and/or request signature", None)
        if params.get("signatureVersion") != "3" or "expires" not in params:
            return refused
        expires = datetime.strptime(params["expires"], "%Y-%m-%dT%H:%M:%S%z")
        if expires < self.server_now or params.get("apiKey") != KEY:
            return refused
        return None if params.get("signature") == java_signature(params, SECRET) else refused

    def _next(self, command: str, params: dict[str, str]) -> Answer | Cut | Hang | Held | Drip:
        replies = self.scripted.get(command)
        reply = replies.pop(0) if replies else self._ordinary
        return reply(params) if callable(reply) else reply

    def _ordinary(self, params: dict[str, str]) -> Answer:
        command = params["command"]
        if command == "listCapabilities":
            return self._ok({"capability": {"cloudstackversion": "4.18.0"}})
        if command == "queryAsyncJobResult":
            job = self.jobs.get(params["jobid"])
            if job is None:
                return error(431, UNKNOWN.format(command=command.lower(), name="jobid", value=params["jobid"]))
            return self._ok(job)
        if command in LISTS:
            return self._list(command, params)
        if command in ("deleteVolume", "recoverVirtualMachine"):
            return self._ok({"success": "true"})
        return self._submit(command, params)

    def _submit(self, command: str, params: dict[str, str]) -> Answer:
        job_id = params.get("customjobid") if self.honours_ids else None
        if job_id in self.jobs:
            return error(431, f"UUID: {job_id} already exists so can't create another one", 4350)
        java = f"org.apache.{command[0].upper()}{command[1:]}Cmd"
        answer = {"jobid": self.add_job(job_id, cmd=java)}
        if command.startswith("create") and command != "createTags":
            answer["id"] = str(uuid.uuid4())
            self.jobs[answer["jobid"]]["jobinstanceid"] = answer["id"]
        return self._ok(answer)

    def _list(self, command: str, params: dict[str, str]) -> Answer:
        page, size = int(params["page"]), int(params["pagesize"])
        if size > self.page_limit:
            return error(431, f"Page size can't exceed max allowed page size value: {self.page_limit}", 4350)
        rows = list(self.tables.get(command, []))
        if command == "listAsyncJobs":
            rows = [row for row in self.jobs.values() if not (self.lists_pending_only and row["jobstatus"])]
            rows = [] if self.lists_nothing else rows
        asked = [one for one in [params.get("id"), *params.get("ids", "").split(",")] if one]
        if asked and not self.ignores_ids:
            known = {row["id"] for row in rows}
            for one in asked:
                if one not in known:
                    return error(431, UNKNOWN.format(command=command.lower(), name="id", value=one))
            rows = [row for row in rows if row["id"] in asked]
        shown = rows[(page - 1) * size : page * size]
        return self._ok({"count": len(rows), LISTS[command]: shown} if shown else {})

    @staticmethod
    def _ok(content: dict[str, Any]) -> Answer:
        return Answer(body={"xresponse": content})


@asynccontextmanager
async def serve_stub(stub: Stub) -> AsyncIterator[Stub]:
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/client/api", stub.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    stub.url = f"http://{host}:{port}/client/api"
    try:
        yield stub
    finally:
        stub.closing.set()
        await runner.cleanup()
