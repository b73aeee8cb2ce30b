"""The part of the admin API that changes single rows by hand: what somebody else does to the cloud."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web

from ossea.simulator.admin_requests import read_body, there
from ossea.simulator.model import history, seeding
from ossea.simulator.model.machine import Model
from ossea.simulator.model.world import Table, World
from ossea.simulator.service import Simulator

Patch = Callable[[World, Any, dict[str, Any]], None]

_PATCHES: dict[str, tuple[str, Patch]] = {
    "hosts": ("host", seeding.patch_host),
    "vms": ("VM", seeding.patch_vm),
    "volumes": ("volume", seeding.patch_volume),
    "snapshots": ("snapshot", seeding.patch_snapshot),
}


class RowsApi:
    """One handler per route."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def routes(self) -> list[web.RouteDef]:
        return [
            *(web.patch(f"/{table}/{{id}}", partial(self.patch, table)) for table in _PATCHES),
            web.delete("/volumes/{id}", self.delete_volume),
            web.post("/volumes/{id}/release-device", self.release_device),
            web.delete("/snapshots/{id}", self.delete_snapshot),
            web.post("/vm-snapshots", self.add_vm_snapshot),
            web.delete("/vm-snapshots/{id}", self.delete_vm_snapshot),
            web.post("/events", self.add_event),
            web.delete("/events", self.purge_events),
        ]

    async def patch(self, name: str, request: web.Request) -> web.Response:
        changes = await read_body(request)
        row_id = request.match_info["id"]
        what, patch = _PATCHES[name]

        def change(model: Model) -> dict[str, Any]:
            table: Table[Any] = model.world.tables()[name]
            row = there(table.find(row_id), what, row_id)
            patch(model.world, row, changes)
            return table.as_json(row)

        return web.json_response(await self._simulator.change(change))

    async def delete_volume(self, request: web.Request) -> web.Response:
        row_id = request.match_info["id"]

        def change(model: Model) -> None:
            seeding.forget_volume(model.world, there(model.world.live_volume(row_id), "volume", row_id))

        await self._simulator.change(change)
        return web.json_response({})

    async def release_device(self, request: web.Request) -> web.Response:
        row_id = request.match_info["id"]

        def change(model: Model) -> None:
            seeding.release_device(model.world, there(model.world.volumes.find(row_id), "volume", row_id))

        await self._simulator.change(change)
        return web.json_response({})

    async def delete_snapshot(self, request: web.Request) -> web.Response:
        row_id = request.match_info["id"]

        def change(model: Model) -> None:
            seeding.forget_snapshot(model.world, there(model.world.live_snapshot(row_id), "snapshot", row_id))

        await self._simulator.change(change)
        return web.json_response({})

    async def add_vm_snapshot(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        row_id = await self._simulator.change(
            lambda model: seeding.add_vm_snapshot(model.world, str(body.get("vm_id")))
        )
        return web.json_response({"id": row_id})

    async def delete_vm_snapshot(self, request: web.Request) -> web.Response:
        row_id = request.match_info["id"]

        def change(model: Model) -> None:
            row = there(model.world.vm_snapshots.find(row_id), "VM snapshot", row_id)
            row.removed = model.world.now
            model.world.vm_snapshots.touch(row)

        await self._simulator.change(change)
        return web.json_response({})

    async def add_event(self, request: web.Request) -> web.Response:
        body = await read_body(request)
        event_id = await self._simulator.change(lambda model: history.add_event(model.world, body))
        return web.json_response({"id": event_id})

    async def purge_events(self, request: web.Request) -> web.Response:
        vm_id = request.query.get("vm_id")
        gone = await self._simulator.change(lambda model: history.purge_events(model.world, vm_id))
        return web.json_response({"purged": gone})
