"""The API's routes: parse, one call, answer."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from aiohttp import web

from appliance.web import as_json
from volume_daemon.models import Operation, OperationType
from volume_daemon.server.answers import Answers, operations_body
from volume_daemon.server.cloud import ROOT_DEVICE
from volume_daemon.server.operations import Operations
from volume_daemon.server.refusals import not_found
from volume_daemon.server.requests import (
    check_create,
    check_export,
    read_body,
    read_filter,
    read_order,
    read_revoked,
    read_uuid,
    read_wait,
)

ATTACH_FIELDS = frozenset({"vm_id", "export"})
CREATE_FIELDS = frozenset({"name", "size", "disk_offering_id", "zone_id", "metadata"})
REVOKE_FIELDS = frozenset({"type", "volume_id"})
DETACH_FIELDS = frozenset({"vm_id"})
NO_FIELDS: frozenset[str] = frozenset()


class Routes:
    """Handlers under `/api/v1`."""

    def __init__(self, operations: Operations, answers: Answers) -> None:
        self._operations = operations
        self._answers = answers

    def add_to(self, app: web.Application, prefix: str) -> None:
        app.add_routes(
            [
                web.post(f"{prefix}/volumes", self.create),
                web.post(f"{prefix}/volumes/{{volume_id}}/attach", self.attach),
                web.post(f"{prefix}/volumes/{{volume_id}}/attach-root", self.attach_root),
                web.post(f"{prefix}/volumes/{{volume_id}}/detach", self.detach),
                web.delete(f"{prefix}/volumes/{{volume_id}}", self.delete),
                web.get(f"{prefix}/volumes/{{volume_id}}", self.get_volume),
                web.get(f"{prefix}/volumes/{{volume_id}}/device", self.get_device),
                web.get(f"{prefix}/operations", self.list_operations),
                web.get(f"{prefix}/operations/{{operation_id}}", self.get_operation),
                web.post(f"{prefix}/operations/{{operation_id}}/cancel", self.cancel),
                web.post(f"{prefix}/operations/{{operation_id}}/revoke", self.revoke),
                web.get(f"{prefix}/vms/{{vm_id}}/volumes", self.list_vm_volumes),
                web.get(f"{prefix}/devices", self.list_devices),
                web.get(f"{prefix}/devices/{{path:.+}}/volume", self.get_volume_at),
            ]
        )

    async def create(self, request: web.Request) -> web.Response:
        body = await read_body(request, CREATE_FIELDS)
        check_create(body)
        return _created(await self._operations.accept(read_order(request, OperationType.CREATE, body)))

    async def attach(self, request: web.Request) -> web.Response:
        body = await read_body(request, ATTACH_FIELDS)
        check_export(body)
        return _created(await self._operations.accept(read_order(request, OperationType.ATTACH, body)))

    async def attach_root(self, request: web.Request) -> web.Response:
        body = await read_body(request, ATTACH_FIELDS)
        check_export(body)
        order = read_order(request, OperationType.ATTACH, body, device_id=ROOT_DEVICE)
        return _created(await self._operations.accept(order))

    async def detach(self, request: web.Request) -> web.Response:
        body = await read_body(request, DETACH_FIELDS)
        return _created(await self._operations.accept(read_order(request, OperationType.DETACH, body)))

    async def delete(self, request: web.Request) -> web.Response:
        body = await read_body(request, NO_FIELDS)
        return _created(await self._operations.accept(read_order(request, OperationType.DELETE, body)))

    async def get_volume(self, request: web.Request) -> web.Response:
        return _ok(await self._answers.describe_volume(_path_id(request, "volume_id")))

    async def get_device(self, request: web.Request) -> web.Response:
        return _ok((await self._answers.find_device(_path_id(request, "volume_id"))).as_json())

    async def list_operations(self, request: web.Request) -> web.Response:
        return _ok(operations_body(await self._operations.list(read_filter(request))))

    async def get_operation(self, request: web.Request) -> web.Response:
        wait_s = read_wait(request)
        operation_id = request.match_info["operation_id"]
        operation = await self._operations.wait(operation_id.lower(), wait_s)
        if operation is None:
            raise not_found("operation_not_found", f"No operation {operation_id[:64]!r} ever arrived.")
        return _ok(operation.as_json())

    async def cancel(self, request: web.Request) -> web.Response:
        await read_body(request, NO_FIELDS)
        return _ok((await self._operations.cancel(_path_id(request, "operation_id"))).as_json())

    async def revoke(self, request: web.Request) -> web.Response:
        """Whoever gave the order takes it back, also where it may still be on its way here."""
        body = await read_body(request, REVOKE_FIELDS)
        order = read_revoked(request, _path_id(request, "operation_id"), body)
        return _ok((await self._operations.revoke(order)).as_json())

    async def list_vm_volumes(self, request: web.Request) -> web.Response:
        vm_id = _path_id(request, "vm_id")
        volumes = await self._answers.list_vm_volumes(vm_id)
        return _ok({"vm_id": vm_id, "volumes": [volume.as_json() for volume in volumes], "count": len(volumes)})

    async def list_devices(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        return _ok((await self._answers.scan_devices()).as_json())

    async def get_volume_at(self, request: web.Request) -> web.Response:
        return _ok((await self._answers.find_volume_at(request.match_info["path"])).as_json())


def _path_id(request: web.Request, field: str) -> str:
    return read_uuid(field, request.match_info[field])


def _created(operation: Operation) -> web.Response:
    answer = _answer(operation.as_json(), HTTPStatus.CREATED)
    answer.headers["Location"] = f"/api/v1/operations/{operation.id}"
    return answer


def _ok(body: dict[str, Any]) -> web.Response:
    return _answer(body, HTTPStatus.OK)


def _answer(body: dict[str, Any], status: HTTPStatus) -> web.Response:
    return web.Response(text=as_json(body), status=status, content_type="application/json")
