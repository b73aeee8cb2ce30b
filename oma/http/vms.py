"""`GET /api/v1/vm-contexts`: the VMs, and whether a clean-up is advised."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from oma.http.described import CURSOR, LIMIT, answers_json, in_path, in_query, operation
from oma.http.query import check_names, read_choice, read_flag, read_limit, read_text
from oma.http.schemas import as_list, vm_entry
from oma.http.site import Route, answer_json, site_of
from oma.ports import ContextFilter
from oma.service import queries

STATUSES: Final = (
    "discovered",
    "replicating",
    "ready_for_failover",
    "failed_over_test",
    "failed_over_live",
    "completed",
    "failed",
    "cleanup_required",
)
"""What `vm_replication_contexts.current_status` may say."""


async def list_vms(request: web.Request) -> web.Response:
    check_names(request, ("status", "needs_cleanup", "q", "limit", "cursor"))
    where = ContextFilter(status=read_choice(request, "status", STATUSES), q=read_text(request, "q"))
    needs = read_flag(request, "needs_cleanup")
    limit, cursor = read_limit(request), read_text(request, "cursor")
    page = await queries.list_vms(site_of(request).deps, where, needs=needs, limit=limit, cursor=cursor)
    return answer_json(as_list((vm_entry(view) for view in page.items), page.next_cursor))


async def show_vm(request: web.Request) -> web.Response:
    check_names(request, ("context_id",))
    view = await queries.get_vm(site_of(request).deps, request.match_info["vm_name"], read_text(request, "context_id"))
    return answer_json(vm_entry(view))


ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/vm-contexts",
        list_vms,
        operation(
            "listVms",
            "The VMs by name",
            {200: answers_json("VmList", "A page of VMs.")},
            tag="VMs",
            parameters=(
                in_query("status", "Only VMs with this status.", {"type": "string", "enum": list(STATUSES)}),
                in_query("needs_cleanup", "Only VMs that need a clean-up, or only the others.", {"type": "boolean"}),
                in_query("q", "Only VMs whose name holds this text."),
                LIMIT,
                CURSOR,
            ),
            problems=(422, 503),
        ),
    ),
    Route(
        "GET",
        "/api/v1/vm-contexts/{vm_name}",
        show_vm,
        operation(
            "showVm",
            "One VM with its volumes, snapshots and failover jobs",
            {200: answers_json("Vm", "The VM.")},
            tag="VMs",
            parameters=(
                in_path("vm_name", "The VM's name, URL-encoded."),
                in_query("context_id", "Which one, where several carry the name."),
            ),
            problems=(404, 409, 422, 503),
        ),
        pattern="/api/v1/vm-contexts/{vm_name:.*}",
    ),
)
