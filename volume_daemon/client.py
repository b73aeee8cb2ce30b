"""The async client of the Volume Daemon: one shared session, long polls instead of sleeping.

It never retries: who calls knows whether the same call may be sent again (with the same `request_id` it always may).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import aiohttp

from volume_daemon.errors import ErrorKind, VolumeDaemonError
from volume_daemon.holders.ended import EndReport
from volume_daemon.holders.report import HolderReport, ProcessId
from volume_daemon.models import DeviceMapping, Devices, Operation

T = TypeVar("T")
Json = Mapping[str, Any]
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

    async def detach(self, volume_id: str, *, request_id: str | None = None, fence: int | None = None) -> Operation:
        return await self._change("POST", f"/volumes/{quote(volume_id, safe='')}/detach", {}, request_id, fence)

    async def delete(self, volume_id: str, *, request_id: str | None = None, fence: int | None = None) -> Operation:
        return await self._change("DELETE", f"/volumes/{quote(volume_id, safe='')}", None, request_id, fence)

    async def cancel(self, operation_id: str) -> Operation:
        """Takes back an operation that CloudStack has not been asked for."""
        return await self._change("POST", f"/operations/{quote(operation_id, safe='')}/cancel", {}, None, None)

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
        status, data = await self._send("POST", path, body, None, _change_headers(request_id, fence), timeout_s)
        return _parsed(status, data, EndReport.parse)

    async def health(self) -> dict[str, Any]:
        """What the daemon says of itself and its dependencies, also where it says that it is not well."""
        status, data = await self._send("GET", "/health", None, None, {}, self._timeout_s)
        if status not in (HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE) or "dependencies" not in data:
            raise _problem(status, data)
        return dict(data)

    async def _get(
        self,
        path: str,
        parse: Callable[[Json], T],
        query: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> T:
        status, data = await self._send("GET", path, None, query, {}, timeout_s or self._timeout_s)
        return _parsed(status, data, parse)

    async def _change(
        self, method: str, path: str, body: Json | None, request_id: str | None, fence: int | None
    ) -> Operation:
        headers = _change_headers(request_id, fence)
        status, data = await self._send(method, path, body, None, headers, self._timeout_s)
        return _parsed(status, data, Operation.parse)

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
        if not isinstance(data, dict):
            raise _broken(f"HTTP {response.status} with something that is no JSON object", response.status)
        return response.status, data

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MOST_CONNECTIONS))
        return self._session


def _change_headers(request_id: str | None, fence: int | None) -> dict[str, str]:
    headers = {}
    if request_id is not None:
        headers["Idempotency-Key"] = request_id
    if fence is not None:
        headers["X-Fence"] = str(fence)
    return headers


def _parsed(status: int, data: Json, parse: Callable[[Json], T]) -> T:
    if status >= HTTPStatus.BAD_REQUEST:
        raise _problem(status, data)
    try:
        return parse(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _broken(f"its answer lacks or garbles {error}") from None


def _problem(status: int, data: Json) -> VolumeDaemonError:
    """A 4xx says that nothing was changed; a 5xx leaves it open."""
    if "code" not in data:
        return _broken(f"HTTP {status} without a code", status)
    kind = ErrorKind.REFUSED if status < HTTPStatus.INTERNAL_SERVER_ERROR else ErrorKind.FAILED
    text = str(data.get("detail") or data.get("title") or f"HTTP {status}")
    return VolumeDaemonError(kind, str(data["code"]), text, status=status, fields=data)


def _broken(what: str, status: int | None = None) -> VolumeDaemonError:
    text = f"the Volume Daemon's answer is broken: {what}"
    return VolumeDaemonError(ErrorKind.BROKEN_ANSWER, "volume_daemon_error", text, status=status)
