"""CloudStack's HTTP API at `/client/api`: parameters, signature, faults, envelopes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from typing import Any

from aiohttp import web

from ossea.simulator.calls import is_read
from ossea.simulator.model.errors import THROTTLED, UNSUPPORTED, ApiError, unauthorized
from ossea.simulator.model.faults import MODEL_KINDS, Fault, FaultKind, pick
from ossea.simulator.service import Simulator
from ossea.simulator.signature import is_signed

_JSON = "application/json;charset=UTF-8"
_HTML = "<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"
_HIDDEN = frozenset({"signature", "apikey"})
_FORM_LIMIT = 1 << 20


class CloudStackApi:
    """The handler; one answer per request, whatever happens to it."""

    def __init__(self, simulator: Simulator, api_key: str, secret_key: str) -> None:
        self._simulator = simulator
        self._api_key = api_key
        self._secret_key = secret_key
        self._second = 0
        self._in_second = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=_FORM_LIMIT)
        app.router.add_route("GET", "/client/api", self.handle)
        app.router.add_route("POST", "/client/api", self.handle)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        params = await _params(request)
        command = params.get("command", "")
        model = self._simulator.model
        named = {name.lower(): value for name, value in params.items()}
        entry = self._simulator.log_call(_call_entry(model.canonical(command), params, self._simulator.now()))
        faults = model.faults.take(model.canonical(command), named)
        if faults:
            await self._simulator.faults_changed()
            entry["faults"] = [str(fault.kind) for fault in faults]
        await self._wait(faults)
        if pick(faults, (FaultKind.LOST_REQUEST,)) is not None:
            self._simulator.store_call(entry)
            return _cut(request)
        broken = pick(faults, (FaultKind.HTTP_STATUS,))
        if broken is not None:
            self._simulator.store_call(entry)
            return self._html(entry, broken.errorcode or 503, broken.errortext or "Service Unavailable")
        response = await self._answer(command, params, faults, entry)
        self._simulator.store_call(entry)
        if pick(faults, (FaultKind.LOST_ANSWER,)) is not None:
            return _cut(request)
        odd = pick(faults, (FaultKind.NON_JSON,))
        return response if odd is None else self._html(entry, 200, odd.errortext or "It works")

    async def _wait(self, faults: Sequence[Fault]) -> None:
        delay = pick(faults, (FaultKind.DELAY,))
        seconds = self._simulator.settings.latency_s + (0.0 if delay is None else delay.delay_s or 0.0)
        if seconds:
            await asyncio.sleep(seconds)

    async def _answer(
        self, command: str, params: Mapping[str, str], faults: Sequence[Fault], entry: dict[str, Any]
    ) -> web.Response:
        try:
            self._check_access(command, params)
            if not is_read(entry["command"]):
                entry["seen"] = self._simulator.see(entry["command"], params)
            body = await self._simulator.call(command, params, [fault for fault in faults if fault.kind in MODEL_KINDS])
        except ApiError as error:
            entry["status"] = entry["errorcode"] = error.errorcode
            entry["errortext"] = error.text
            return self._refuse(command, error)
        entry["status"] = 200
        if "jobid" in body:
            entry["jobid"] = body["jobid"]
        return self._respond(200, f"{command.lower()}response", body)

    def _check_access(self, command: str, params: Mapping[str, str]) -> None:
        settings = self._simulator.settings
        now = self._simulator.now() + settings.clock_offset_s
        if settings.signature_check and not is_signed(params, self._api_key, self._secret_key, now):
            raise unauthorized()
        if not command:
            raise ApiError(UNSUPPORTED, "Invalid request, no command sent")
        if not self._simulator.model.knows(command):
            raise unauthorized()
        if settings.throttle_per_s is not None:
            self._throttle(settings.throttle_per_s)

    def _throttle(self, most: int) -> None:
        now = self._simulator.now()
        if int(now) != self._second:
            self._second, self._in_second = int(now), 0
        self._in_second += 1
        if self._in_second > most:
            wait_ms = int((self._second + 1 - now) * 1000)
            text = f"The given user has reached his/her account api limit, please retry after {wait_ms} ms."
            raise ApiError(THROTTLED, text, None)

    def _refuse(self, command: str, error: ApiError) -> web.Response:
        known = error.errorcode != UNSUPPORTED and self._simulator.model.knows(command)
        body: dict[str, Any] = {"uuidList": [], "errorcode": error.errorcode, "errortext": error.text}
        if error.cserrorcode is not None:
            body["cserrorcode"] = error.cserrorcode
        return self._respond(error.errorcode, f"{command.lower()}response" if known else "errorresponse", body)

    def _respond(self, status: int, name: str, body: Mapping[str, Any]) -> web.Response:
        text = json.dumps({name: body}, separators=(",", ":"), ensure_ascii=False)
        return web.Response(
            status=status,
            body=text.encode(),
            headers={"Content-Type": _JSON, **self._date(), "Cache-Control": "no-cache"},
        )

    def _html(self, entry: dict[str, Any], status: int, title: str) -> web.Response:
        entry["status"] = status
        return web.Response(status=status, text=_HTML.format(title), content_type="text/html", headers=self._date())

    def _date(self) -> dict[str, str]:
        offset = self._simulator.settings.clock_offset_s
        return {"Date": formatdate(self._simulator.now() + offset, usegmt=True)} if offset else {}


async def _params(request: web.Request) -> dict[str, str]:
    """Query and form together, the first value of each name, as a servlet container has them."""
    params: dict[str, str] = {}
    for name, value in request.query.items():
        params.setdefault(name, value)
    if request.method == "POST":
        for name, field in (await request.post()).items():
            if isinstance(field, str):
                params.setdefault(name, field)
    return params


def _call_entry(command: str, params: Mapping[str, str], now: float) -> dict[str, Any]:
    shown = {name: value for name, value in params.items() if name.lower() not in _HIDDEN and name != "command"}
    return {
        "seq": 0,
        "at": now,
        "command": command,
        "params": shown,
        "status": None,
        "errorcode": None,
        "jobid": None,
    }


def _cut(request: web.Request) -> web.StreamResponse:
    """The connection ends without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
