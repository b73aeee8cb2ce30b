"""What the daemon finds when it looks at each thing it depends on, and its figures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from appliance.web import as_json
from database.errors import DatabaseUnavailable, SchemaOutdated
from ossea.client import CloudStack
from ossea.errors import CloudStackError
from volume_daemon.server.devices import DeviceWatch
from volume_daemon.server.metrics import Metrics
from volume_daemon.server.nbd import NbdFiles, NbdUnwritable
from volume_daemon.server.operations import Operations
from volume_daemon.server.queue import FairQueue
from volume_daemon.server.store import Store

LOOK_TIMEOUT_S = 3.0


class Health:
    """`unhealthy` without database or device watch: nothing can be done. `degraded`: some things cannot."""

    def __init__(
        self,
        *,
        cloud: CloudStack,
        store: Store,
        devices: DeviceWatch,
        nbd: NbdFiles,
        operations: Operations,
        queue: FairQueue,
        metrics: Metrics,
    ) -> None:
        self._cloud = cloud
        self._store = store
        self._devices = devices
        self._nbd = nbd
        self._operations = operations
        self._queue = queue
        self._metrics = metrics

    def add_to(self, app: web.Application) -> None:
        app.add_routes(
            [
                web.get("/health", self.get_health),
                web.get("/api/v1/health", self.get_health),
                web.get("/api/v1/metrics", self.get_metrics_json),
                web.get("/metrics", self.get_metrics),
            ]
        )

    async def look(self) -> dict[str, Any]:
        database, cloudstack, nbd = await asyncio.gather(
            _finding(self._store.check()), _finding(self._check_cloudstack()), _finding(self._check_nbd())
        )
        devices = self._check_devices()
        vital = database["ok"] and devices["ok"]
        status = "healthy" if vital and cloudstack["ok"] and nbd["ok"] else ("degraded" if vital else "unhealthy")
        found = {"database": database, "cloudstack": cloudstack, "devices": devices, "nbd": nbd}
        faults = [f"{name}: {one['detail']}" for name, one in found.items() if not one["ok"]]
        return {
            "status": status,
            "detail": "; ".join(faults) or "All dependencies answer.",
            "dependencies": found,
            "operations": {
                "open": self._operations.count_live(),
                "waiting": self._queue.count_waiting(),
                "outstanding": self._queue.count_served(),
            },
        }

    async def get_health(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        body = await self.look()
        status = HTTPStatus.SERVICE_UNAVAILABLE if body["status"] == "unhealthy" else HTTPStatus.OK
        return web.Response(text=as_json(body), status=status, content_type="application/json")

    async def get_metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        return web.Response(body=self._metrics.as_text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def get_metrics_json(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        return web.Response(text=as_json(self._metrics.as_json()), content_type="application/json")

    async def _check_cloudstack(self) -> str:
        zones = await self._cloud.list_zones()
        return f"CloudStack answers and lists {len(zones)} zones."

    async def _check_nbd(self) -> str:
        await self._nbd.check_writable()
        return f"{self._nbd.config_dir} can be written."

    def _check_devices(self) -> dict[str, Any]:
        problem = self._devices.problem
        return {"ok": problem is None, "detail": problem or f"{self._devices.device_root} is watched."}


async def _finding(check: Awaitable[str]) -> dict[str, Any]:
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            return {"ok": True, "detail": await check}
    except TimeoutError:
        return {"ok": False, "detail": f"it did not answer within {LOOK_TIMEOUT_S:g} s"}
    except (DatabaseUnavailable, SchemaOutdated, CloudStackError, NbdUnwritable) as error:
        return {"ok": False, "detail": str(error)}
