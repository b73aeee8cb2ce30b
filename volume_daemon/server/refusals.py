"""What the API answers instead of what was asked for: a status, a stable code, a sentence."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

TITLES = {
    "invalid_request": "The request is not valid",
    "idempotency_key_reused": "The idempotency key was used for another change",
    "fenced": "A newer holder of this volume has spoken",
    "volume_not_found": "No such volume",
    "volume_detached": "The volume is detached",
    "device_not_found": "No such device",
    "operation_not_found": "No such operation",
    "operation_started": "The operation can no longer be taken back",
    "state_unknown": "The state could not be established",
    "holder_changed": "The process is not the one that was seen",
    "holder_refused": "The holder is not one that may be ended",
    "database_unavailable": "The database is not available",
    "no_credentials": "CloudStack's endpoint or credentials are missing",
    "shutting_down": "The daemon is stopping",
    "journal_in_use": "Another daemon works on this journal",
    "start_failed": "The daemon could not start yet",
    "cloudstack_error": "CloudStack answered with an error",
    "cloudstack_timeout": "CloudStack did not answer in time",
}


class Problem(Exception):
    """An error that the caller is told; `fields` are JSON values and never hold secrets."""

    def __init__(self, status: HTTPStatus, code: str, detail: str, **fields: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.fields = fields

    @property
    def title(self) -> str:
        return TITLES.get(self.code, "The request failed")


def invalid(field: str, detail: str, allowed: str) -> Problem:
    """422 `invalid_request`, naming the field and what is allowed."""
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return Problem(status, "invalid_request", f"{field}: {detail}", field=field, allowed=allowed)


def fenced(volume_id: str, fence: int, seen: int) -> Problem:
    return Problem(
        HTTPStatus.CONFLICT,
        "fenced",
        f"X-Fence {fence} is lower than {seen}, which this volume has seen: somebody else holds it now.",
        volume_id=volume_id,
        fence=fence,
        seen=seen,
    )


def key_reused(operation_id: str) -> Problem:
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "idempotency_key_reused",
        f"The Idempotency-Key {operation_id} stands for another change; take a new key for a new change.",
        operation_id=operation_id,
    )


def unknown(detail: str, asked: str) -> Problem:
    """503 `state_unknown`: not knowing is never told as "detached"."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "state_unknown", detail, asked=asked)


def not_found(code: str, detail: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, code, detail)
