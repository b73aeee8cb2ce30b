"""From error codes to HTTP statuses: the only table of its kind, and the problem documents made with it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from appliance.web import (
    correlation_id_of,
    cross_site_problem,
    framework_detail,
    framework_problem,
    internal_problem,
    problem,
)
from oma.domain.errors import Code, OmaError, RetryClass, retry_class
from oma.domain.verdict import of_error
from oma.service.answers import FAILURE_PREFIX

CLEANUP_ROUTE: Final = "cleanup-failed"
"""Name of the main job's route; its errors carry `success`, `error` and `vm_name` besides."""

RETRY_AFTER_S: Final = 5
PAUSED_RETRY_AFTER_S: Final = 60
"""A person paused it, and a person lifts it."""

STATUS: Final[dict[Code, HTTPStatus]] = {
    Code.CROSS_SITE: HTTPStatus.FORBIDDEN,
    Code.VM_NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.JOB_NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.ISSUE_NOT_FOUND: HTTPStatus.NOT_FOUND,
    Code.AMBIGUOUS_VM_NAME: HTTPStatus.CONFLICT,
    Code.CLEANUP_IN_PROGRESS: HTTPStatus.CONFLICT,
    Code.OPERATION_IN_PROGRESS: HTTPStatus.CONFLICT,
    Code.LIVE_FAILOVER: HTTPStatus.CONFLICT,
    Code.TEST_FAILOVER_ACTIVE: HTTPStatus.CONFLICT,
    Code.FOREIGN_MARKER: HTTPStatus.CONFLICT,
    Code.NEEDS_RESOLUTION: HTTPStatus.CONFLICT,
    Code.VOLUME_ON_FOREIGN_VM: HTTPStatus.CONFLICT,
    Code.DEVICE_IN_USE: HTTPStatus.CONFLICT,
    Code.VOLUME_BUSY: HTTPStatus.CONFLICT,
    Code.SNAPSHOT_MISSING: HTTPStatus.CONFLICT,
    Code.SNAPSHOT_MISMATCH: HTTPStatus.CONFLICT,
    Code.REPLICATED_SINCE_SNAPSHOT: HTTPStatus.CONFLICT,
    Code.STATE_UNKNOWN: HTTPStatus.CONFLICT,
    Code.NOTHING_TO_CLEAN: HTTPStatus.CONFLICT,
    Code.PLAN_STALE: HTTPStatus.CONFLICT,
    Code.RESOLUTION_CONTRADICTED: HTTPStatus.CONFLICT,
    Code.INVALID_REQUEST: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.IDEMPOTENCY_KEY_REUSED: HTTPStatus.UNPROCESSABLE_ENTITY,
    Code.CLEANUP_FAILED: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.INTERNAL_ERROR: HTTPStatus.INTERNAL_SERVER_ERROR,
    Code.CLOUDSTACK_ERROR: HTTPStatus.BAD_GATEWAY,
    Code.VOLUME_DAEMON_ERROR: HTTPStatus.BAD_GATEWAY,
    Code.CLOUDSTACK_TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT,
    Code.VOLUME_DAEMON_TIMEOUT: HTTPStatus.GATEWAY_TIMEOUT,
    Code.PAUSED: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.SHUTTING_DOWN: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.DATABASE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    Code.DATABASE_OLDER_THAN_WORLD: HTTPStatus.SERVICE_UNAVAILABLE,
}


def status_of(code: Code) -> HTTPStatus:
    return STATUS[code]


def problem_of(request: web.Request, error: Exception) -> web.Response | None:
    """The problem document for an error of ours or of the framework; None for redirects and what nobody foresaw."""
    match error:
        case OmaError():
            fields = {
                **error.fields,
                "retry": retry_class(error.code).value,
                **cleanup_fields(request, str(error), error.code.value, error.fields),
            }
            answer = problem(
                status_of(error.code), error.code.value, error.title, str(error), correlation_id_of(request), **fields
            )
            if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and retry_class(error.code) is RetryClass.LATER:
                after_s = PAUSED_RETRY_AFTER_S if error.code is Code.PAUSED else RETRY_AFTER_S
                answer.headers["Retry-After"] = str(after_s)
            return answer
        case web.HTTPException():
            if error.status < HTTPStatus.BAD_REQUEST:
                return None
            detail = framework_detail(request, error)
            return framework_problem(request, error, **cleanup_fields(request, detail, ""))
        case _:
            return None


def unforeseen(request: web.Request) -> web.Response:
    told = cleanup_fields(request, "Something unexpected happened.", Code.INTERNAL_ERROR.value)
    return internal_problem(request, **told)


def refuse_cross_site(request: web.Request, reason: str) -> web.Response:
    return cross_site_problem(request, reason, **cleanup_fields(request, reason, Code.CROSS_SITE.value))


def cleanup_fields(
    request: web.Request, detail: str, code: str, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What the clean-up endpoint's errors carry besides; nothing on any other route.

    `known` are the error's own fields: what they say of the replica and of the next step stands.
    """
    if request.match_info.route.name != CLEANUP_ROUTE:
        return {}
    return {
        "success": False,
        "error": f"{FAILURE_PREFIX}{detail}",
        "vm_name": request.match_info.get("vm_name", ""),
        **of_error(code, known or {}).as_json(),
    }
