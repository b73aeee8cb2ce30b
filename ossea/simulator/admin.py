"""The admin API: seeds scenarios, reads bytes and hashes, changes behaviour, injects faults; rows in `admin_rows`."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from ossea.simulator.admin_requests import BadInput, NotFound, read_body, read_number
from ossea.simulator.admin_rows import RowsApi
from ossea.simulator.calls import is_read
from ossea.simulator.model.faults import FaultFault, fault_from_json
from ossea.simulator.model.rows import SeedFault
from ossea.simulator.model.settings import RESTART_MODES, SettingsFault
from ossea.simulator.service import Simulator
from ossea.simulator.storage import ContentMissing

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_LARGEST_BODY = 64 << 20
_LARGEST_READ = 16 << 20
_SEEDED = frozenset({"hosts", "projects", "vms", "volumes", "snapshots"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class AdminApi:
    """One handler per route."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def app(self) -> web.Application:
        app = web.Application(middlewares=[_refuse_cross_site, _say_problems], client_max_size=_LARGEST_BODY)
        app.add_routes(
            [
                web.post("/reset", self.reset),
                web.post("/seed", self.seed),
                web.get("/state", self.state),
                web.get("/volumes/{id}/hash", self.volume_hash),
                web.get("/volumes/{id}/bytes", self.volume_bytes),
                web.post("/volumes/{id}/write", self.volume_write),
                web.get("/snapshots/{id}/hash", self.snapshot_hash),
                web.get("/calls", self.calls),
                web.get("/effects", self.effects),
                web.get("/settings", self.get_settings),
                web.put("/settings", self.put_settings),
                web.post("/faults", self.add_fault),
                web.get("/faults", self.get_faults),
                web.delete("/faults", self.clear_faults),
                web.post("/restart", self.restart),
            ]
        )
        app.add_routes(RowsApi(self._simulator).routes())
        return app

    async def reset(self, _request: web.Request) -> web.Response:
        await self._simulator.reset()
        return web.json_response({})

    async def seed(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        unknown = set(body) - _SEEDED
        if unknown:
            known = ", ".join(sorted(_SEEDED))
            raise BadInput(f"unknown key {', '.join(sorted(unknown))}; known are {known}")
        return web.json_response(await self._simulator.seed(**body))

    async def state(self, _request: web.Request) -> web.Response:
        await self._simulator.turn()
        answer: dict[str, dict[str, Any]] = {name: {} for name in self._simulator.model.world.tables()}
        for table, row_id, row in self._simulator.model.dump():
            answer[table][row_id] = row
        del answer["events"]
        return web.json_response({**answer, "devices": self._simulator.device_mode})

    async def volume_hash(self, request: web.Request) -> web.Response:
        digest, size = await self._simulator.volume_hash(request.match_info["id"])
        return web.json_response({"sha256": digest, "size_bytes": size})

    async def volume_bytes(self, request: web.Request) -> web.Response:
        offset, length = read_number(request, "offset", 0), read_number(request, "length", 4096)
        if length > _LARGEST_READ:
            raise BadInput(f"length may be {_LARGEST_READ} at most")
        content = await self._simulator.read(request.match_info["id"], offset, length)
        return web.Response(body=content, content_type="application/octet-stream")

    async def volume_write(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        fill, digits = body.get("fill"), body.get("hex")
        if isinstance(fill, str) == isinstance(digits, str):
            raise BadInput("give fill or hex, one of them")
        try:
            content: bytes | str = fill if isinstance(fill, str) else bytes.fromhex(str(digits))
        except ValueError:
            raise BadInput("hex must be pairs of hexadecimal digits") from None
        offset = body.get("offset", 0)
        if not isinstance(offset, int) or offset < 0:
            raise BadInput("offset must be a whole number, 0 or more")
        await self._simulator.write(request.match_info["id"], offset, content)
        return web.json_response({})

    async def snapshot_hash(self, request: web.Request) -> web.Response:
        digest, size = await self._simulator.snapshot_hash(request.match_info["id"])
        return web.json_response({"sha256": digest, "size_bytes": size})

    async def calls(self, request: web.Request) -> web.Response:
        entries = self._simulator.calls.after(read_number(request, "after", 0))
        if request.query.get("changes") == "1":
            entries = [entry for entry in entries if not is_read(str(entry["command"]))]
        return web.json_response({"calls": entries, "last": self._simulator.calls.last})

    async def effects(self, request: web.Request) -> web.Response:
        entries = self._simulator.effects.after(read_number(request, "after", 0))
        return web.json_response({"effects": entries, "last": self._simulator.effects.last})

    async def get_settings(self, _request: web.Request) -> web.Response:
        return web.json_response(self._simulator.settings.as_json())

    async def put_settings(self, request: web.Request) -> web.Response:
        settings = await self._simulator.put_settings(await read_body(request))
        return web.json_response(settings.as_json())

    async def add_fault(self, request: web.Request) -> web.Response:
        fault = fault_from_json(await read_body(request))
        fault.command = self._simulator.model.canonical(fault.command)
        if fault.command != "*" and not self._simulator.model.knows(fault.command):
            raise BadInput(f"no command {fault.command}")
        self._simulator.model.faults.add(fault)
        await self._simulator.faults_changed()
        return web.json_response(fault.as_json())

    async def get_faults(self, _request: web.Request) -> web.Response:
        return web.json_response({"faults": [fault.as_json() for fault in self._simulator.model.faults.waiting()]})

    async def clear_faults(self, _request: web.Request) -> web.Response:
        self._simulator.model.faults.clear()
        await self._simulator.faults_changed()
        return web.json_response({})

    async def restart(self, request: web.Request) -> web.Response:
        mode = (await read_body(request)).get("mode")
        if mode is not None and mode not in RESTART_MODES:
            raise BadInput(f"mode must be one of {', '.join(RESTART_MODES)}")
        await self._simulator.restart_server(mode)
        return web.json_response({})


def _problem(status: int, code: str, detail: str) -> web.Response:
    return web.json_response(
        {"status": status, "code": code, "title": code.replace("_", " "), "detail": detail}, status=status
    )


@web.middleware
async def _say_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except (NotFound, ContentMissing) as error:
        return _problem(404, "not_found", str(error))
    except (BadInput, SeedFault, SettingsFault, FaultFault, TypeError) as error:
        return _problem(422, "invalid_request", str(error))


@web.middleware
async def _refuse_cross_site(request: web.Request, handler: Handler) -> web.StreamResponse:
    """No page of a browser may drive this: a foreign Host, Origin or `Sec-Fetch-Site` is refused."""
    reason = _foreign(request.method, request.headers)
    if reason is not None:
        return _problem(403, "cross_site", reason)
    return await handler(request)


def _foreign(method: str, headers: Mapping[str, str]) -> str | None:
    host = headers.get("Host", "")
    if not is_loopback(urlsplit(f"//{host}").hostname):
        return f"Host {host} is not a loopback address"
    if method in _READING:
        return None
    origin = headers.get("Origin")
    if origin is not None and origin.lower() != f"http://{host}".lower():
        return f"Origin {origin} is foreign"
    site = headers.get("Sec-Fetch-Site", "none")
    return None if site in {"same-origin", "none"} else f"Sec-Fetch-Site is {site}"


def is_loopback(name: str | None) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name or "").is_loopback
    except ValueError:
        return False
