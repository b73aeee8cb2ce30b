"""The async client of the Volume Daemon: one shared session, long polls instead of sleeping.

It never retries: who calls knows whether the same call may be sent again (with the same `request_id` it always may).
Nor does aiohttp, which sends a DELETE again by itself when a connection breaks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import aiohttp

from ossea.wire import SendOnce
from volume_daemon.errors import ErrorKind, VolumeDaemonError
from volume_daemon.holders.ended import EndReport
from volume_daemon.holders.report import HolderReport, ProcessId
from volume_daemon.models import DeviceMapping, Devices, Operation
from volume_daemon.protocol import RETRY_AFTER, Json, build_broken, build_problem, change_headers, parse_answer

T = TypeVar("T")
MOST_CONNECTIONS = 1000
"""Every waited operation holds one connection while its long poll is open."""

SCAN_S = 10.0
"""What the daemon gives a scan by default, before it answers that it does not know."""
END_S = 60.0
"""TERM, the daemon's wait, KILL and two scans."""


class VolumeDaemonClient:
    """One daemon at `base_url`. Every method raises `VolumeDaemonError`; `timeout_s` bounds one answer."""

    def __init__(self, base_url: str, *, timeout_s: float = 10) -> None:
        self.base_url = base_url.rstrip("/")
        self._base = f"{self.base_url}/api/v1"
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._open()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the session; twice is fine."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def find_mapping(self, volume_id: str) -> DeviceMapping | None:
        """None only where the daemon knows that the volume is detached."""
        try:
            return await self._get(f"/volumes/{quote(volume_id, safe='')}/device", DeviceMapping.parse)
        except VolumeDaemonError as error:
            if error.code == "volume_detached":
                return None
            raise

    async def scan_devices(self) -> Devices:
        """A scan that begins after this call has arrived."""
        return await self._get("/devices", Devices.parse)

    async def create(
        self,
        name: str,
        size_bytes: int,
        disk_offering_id: str,
        zone_id: str,
        *,
        request_id: str | None = None,
    ) -> Operation:
        body = {"name": name, "size": size_bytes, "disk_offering_id": disk_offering_id, "zone_id": zone_id}
        return await self._change("POST", "/volumes", body, request_id, None)

    async def attach(
        self,
        volume_id: str,
        vm_id: str,
        *,
        request_id: str | None = None,
        fence: int | None = None,
        export: bool = True,
    ) -> Operation:
        """`export` false: a volume that comes home stays without its NBD export; the recording is kept."""
        body: dict[str, Any] = {"vm_id": vm_id} if export else {"vm_id": vm_id, "export": False}
        return await self._change("POST", f"/volumes/{quote(volume_id, safe='')}/attach", body, request_id, fence)

    async def attach_root(
        self, volume_id: str, vm_id: str, *, request_id: str | None = None, fence: int | None = None
    ) -> Operation:
        """As the VM's device 0: CloudStack makes it type ROOT until it is detached."""
        path = f"/volumes/{quote(volume_id, safe='')}/attach-root"
        return await self._change("POST", path, {"vm_id": vm_id}, request_id, fence)

    async def detach(
        self, volume_id: str, *, request_id: str | None = None, fence: int | None = None, vm_id: str | None = None
    ) -> Operation:
        """`vm_id`: the VM that it is to be taken off; where another holds it, nothing is sent and it is refused."""
        body = {"vm_id": vm_id} if vm_id is not None else {}
        return await self._change("POST", f"/volumes/{quote(volume_id, safe='')}/detach", body, request_id, fence)

    async def delete(self, volume_id: str, *, request_id: str | None = None, fence: int | None = None) -> Operation:
        return await self._change("DELETE", f"/volumes/{quote(volume_id, safe='')}", None, request_id, fence)

    async def cancel(self, operation_id: str) -> Operation:
        """Takes back an operation that CloudStack has not been asked for."""
        return await self._change("POST", f"/operations/{quote(operation_id, safe='')}/cancel", {}, None, None)

    async def revoke(self, operation_id: str, type_: str, volume_id: str, *, fence: int | None = None) -> Operation:
        """Takes an order back, also one that is still on its way: cancelled, or as it is where CloudStack was asked.

        A daemon of an older generation has no such route: `VolumeDaemonError` `REFUSED` with the code `not_found`.
        """
        path = f"/operations/{quote(operation_id, safe='')}/revoke"
        try:
            return await self._change("POST", path, {"type": type_, "volume_id": volume_id}, None, fence)
        except VolumeDaemonError as error:
            if error.kind is ErrorKind.BROKEN_ANSWER and error.status == HTTPStatus.NOT_FOUND:
                raise VolumeDaemonError(
                    ErrorKind.REFUSED, "not_found", "it takes no order back", status=error.status
                ) from None
            raise

    async def get_operation(self, operation_id: str, wait_s: float = 0) -> Operation | None:
        """None: it never arrived. With `wait_s` the answer comes when it ends, turns overdue, or after that time."""
        path = f"/operations/{quote(operation_id, safe='')}"
        query = {"wait": f"{wait_s:g}"} if wait_s > 0 else None
        try:
            return await self._get(path, Operation.parse, query, self._timeout_s + wait_s)
        except VolumeDaemonError as error:
            if error.code == "operation_not_found":
                return None
            raise

    async def list_operations(
        self,
        *,
        type: str | None = None,  # noqa: A002 - the API's word
        status: str | None = None,
        volume_id: str | None = None,
        vm_id: str | None = None,
        limit: int | None = None,
    ) -> list[Operation]:
        """Newest first."""
        wanted = {"type": type, "status": status, "volume_id": volume_id, "vm_id": vm_id, "limit": limit}
        query = {key: str(value) for key, value in wanted.items() if value is not None}
        return await self._get(
            "/operations", lambda data: [Operation.parse(item) for item in data["operations"]], query
        )

    async def holders(self, volume_id: str, *, timeout_s: float | None = None) -> HolderReport | None:
        """By a scan that begins after this call has arrived; None: no device of the volume is on that machine.

        A daemon of an older generation has no such route: `VolumeDaemonError` with the code `not_found`.
        """
        path = f"/volumes/{quote(volume_id, safe='')}/holders"
        try:
            return await self._get(path, HolderReport.parse, None, timeout_s or self._timeout_s + SCAN_S)
        except VolumeDaemonError as error:
            if error.code == "device_not_found":
                return None
            if error.kind is ErrorKind.BROKEN_ANSWER and error.status == HTTPStatus.NOT_FOUND:
                # The first generation answers an unknown route in plain text.
                raise VolumeDaemonError(
                    ErrorKind.REFUSED, "not_found", "it has no route for holders", status=error.status
                ) from None
            raise

    async def end_holders(
        self,
        volume_id: str,
        holders: Sequence[ProcessId],
        reason: str,
        *,
        request_id: str | None = None,
        fence: int | None = None,
        timeout_s: float = END_S,
    ) -> EndReport:
        """Ends driver injections, each with its process tree, as they were seen; one refusal refuses all.

        Sending the same `request_id` again is safe: what is gone stays gone, and a scan is made anew.
        """
        path = f"/volumes/{quote(volume_id, safe='')}/holders/end"
        body = {"holders": [one.as_json() for one in holders], "reason": reason}
        status, data = await self._send("POST", path, body, None, change_headers(request_id, fence), timeout_s)
        return parse_answer(status, data, EndReport.parse)

    async def health(self) -> dict[str, Any]:
        """What the daemon says of itself and its dependencies, also where it says that it is not well."""
        status, data = await self._send("GET", "/health", None, None, {}, self._timeout_s)
        if status not in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE) or "dependencies" not in data:
            raise build_problem(status, data)
        return dict(data)

    async def _get(
        self,
        path: str,
        parse: Callable[[Json], T],
        query: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> T:
        status, data = await self._send("GET", path, None, query, {}, timeout_s or self._timeout_s)
        return parse_answer(status, data, parse)

    async def _change(
        self, method: str, path: str, body: Json | None, request_id: str | None, fence: int | None
    ) -> Operation:
        headers = change_headers(request_id, fence)
        status, data = await self._send(method, path, body, None, headers, self._timeout_s)
        return parse_answer(status, data, Operation.parse)

    async def _send(  # noqa: PLR0917
        self,
        method: str,
        path: str,
        body: Json | None,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> tuple[int, Json]:
        try:
            async with self._open().request(
                method,
                f"{self._base}{path}",
                json=body,
                params=query,
                headers=headers,
                middlewares=() if method == "GET" else (SendOnce(),),
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                text = await response.text()
        except aiohttp.ClientConnectorError as error:
            reason = error.os_error.strerror or str(error.os_error)
            raise VolumeDaemonError(
                ErrorKind.NOT_SENT, "volume_daemon_unreachable", f"the Volume Daemon is not reachable: {reason}"
            ) from None
        except TimeoutError:
            raise VolumeDaemonError(
                ErrorKind.NO_ANSWER, "volume_daemon_timeout", f"the Volume Daemon did not answer within {timeout_s:g} s"
            ) from None
        except (aiohttp.ClientError, UnicodeDecodeError) as error:
            raise VolumeDaemonError(
                ErrorKind.NO_ANSWER, "volume_daemon_timeout", f"the answer was lost ({type(error).__name__})"
            ) from None
        try:
            data = json.loads(text)
        except ValueError:
            data = None
        wanted = response.headers.get("Retry-After", "")
        retry_after_s = float(wanted) if wanted.isdecimal() else None
        if response.status == HTTPStatus.TOO_MANY_REQUESTS:
            text = "the Volume Daemon, or what stands before it, wants fewer requests"
            raise VolumeDaemonError(
                ErrorKind.NOT_SENT, "throttled", text, status=response.status, retry_after_s=retry_after_s
            )
        if not isinstance(data, dict):
            what = f"HTTP {response.status} with something that is no JSON object"
            raise build_broken(what, response.status, retry_after_s)
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE and retry_after_s is not None:
            data = {**data, RETRY_AFTER: retry_after_s}
        return response.status, data

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MOST_CONNECTIONS))
        return self._session
