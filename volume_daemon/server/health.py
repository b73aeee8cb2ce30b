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
from ossea.errors import CloudStackError
from volume_daemon.server.devices import DevicesUnknown, DeviceWatch, root_problem
from volume_daemon.server.link import Clouds
from volume_daemon.server.metrics import Metrics
from volume_daemon.server.nbd import NbdFiles, NbdUnwritable
from volume_daemon.server.operations import Operations
from volume_daemon.server.queue import FairQueue
from volume_daemon.server.readiness import Readiness
from volume_daemon.server.store import Store

LOOK_TIMEOUT_S = 3.0


class Health:
    """`unhealthy` without the database: nothing can be done. `degraded`: some things cannot."""

    def __init__(
        self,
        *,
        cloud: Clouds,
        store: Store,
        devices: DeviceWatch,
        nbd: NbdFiles,
        operations: Operations,
        queue: FairQueue,
        metrics: Metrics,
        readiness: Readiness,
    ) -> None:
        self._cloud = cloud
        self._store = store
        self._devices = devices
        self._nbd = nbd
        self._operations = operations
        self._queue = queue
        self._metrics = metrics
        self._readiness = readiness

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
        checks = {
            "database": self._store.check(),
            "cloudstack": self._check_cloudstack(),
            "devices": self._check_devices(),
            "nbd": self._check_nbd(),
        }
        found = dict(zip(checks, await asyncio.gather(*map(_finding, checks.values())), strict=True))
        faults = [f"{name}: {one['detail']}" for name, one in found.items() if not one["ok"]]
        # Everything may answer already while what is open is not yet gone on with: nothing is taken in until then.
        if (waiting := self._readiness.reason) is not None:
            faults.append(f"start: {waiting}")
        status = ("degraded" if found["database"]["ok"] else "unhealthy") if faults else "healthy"
        return {
            "status": status,
            "ready": waiting is None,
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
        zones = await self._cloud().list_zones()
        return f"CloudStack answers and lists {len(zones)} zones."

    async def _check_nbd(self) -> str:
        await self._nbd.check_writable()
        return f"{self._nbd.config_dir} can be written."

    async def _check_devices(self) -> str:
        root = self._devices.device_root
        problem = self._devices.problem or await asyncio.to_thread(root_problem, root)
        if problem is not None:
            raise DevicesUnknown(problem)
        return f"{root} is watched."


async def _finding(check: Awaitable[str]) -> dict[str, Any]:
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            return {"ok": True, "detail": await check}
    except TimeoutError:
        return {"ok": False, "detail": f"it did not answer within {LOOK_TIMEOUT_S:g} s"}
    except (DatabaseUnavailable, SchemaOutdated, CloudStackError, DevicesUnknown, NbdUnwritable) as error:
        return {"ok": False, "detail": str(error)}
