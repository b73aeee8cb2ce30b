"""Reading requests: ids are UUIDs, bodies are JSON objects with known fields; every fault names its field."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from volume_daemon.models import OperationStatus, OperationType
from volume_daemon.server.records import Filter, Order
from volume_daemon.server.refusals import Problem, invalid

UUID_ALLOWED = "a UUID, such as b3bb9310-1b59-4f62-97e8-cefffdfe3804"
LONGEST_WAIT_S = 300.0
MOST_LISTED = 500
LARGEST_FENCE = 2**63 - 1
LARGEST_VOLUME = 2**50
LONGEST_NAME = 255
TYPES = [type_.value for type_ in OperationType if type_ is not OperationType.UNKNOWN]
REVOCABLE = (OperationType.ATTACH.value, OperationType.DETACH.value)
STATUSES = [status.value for status in OperationStatus if status is not OperationStatus.UNKNOWN]


def read_uuid(field: str, value: object) -> str:
    """In the one form that CloudStack's `customjobid` takes: lower case, 8-4-4-4-12. Raises `Problem`."""
    if isinstance(value, str) and len(value) == len(str(uuid.UUID(int=0))):
        try:
            if str(uuid.UUID(value)) == value.lower():
                return value.lower()
        except ValueError:
            pass
    raise invalid(field, f"{_shown(value)} is no UUID", UUID_ALLOWED)


async def read_body(request: web.Request, known: frozenset[str]) -> dict[str, Any]:
    """The body's fields; no body is an empty one. Raises `Problem`."""
    raw = await request.read()
    if not raw.strip():
        return {}
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise invalid("body", "it is no JSON", "a JSON object") from None
    if not isinstance(body, dict):
        raise invalid("body", "it is no JSON object", "a JSON object")
    if not _is_text(body):
        raise invalid("body", "it holds half of a surrogate pair, which is no character", "a JSON object of whole text")
    for name in body:
        if name not in known:
            raise invalid(name, "this field is not known here", ", ".join(sorted(known)) or "no field")
    return body


def read_order(request: web.Request, type_: OperationType, body: Mapping[str, Any], **fields: Any) -> Order:
    """An order from headers, path and body. Raises `Problem`."""
    key = request.headers.get("Idempotency-Key")
    volume_id = request.match_info.get("volume_id")
    vm_id = body.get("vm_id")
    names_vm = type_ is OperationType.ATTACH or vm_id is not None
    return Order(
        id=read_uuid("Idempotency-Key", key) if key is not None else str(uuid.uuid4()),
        type=type_,
        volume_id=read_uuid("volume_id", volume_id) if volume_id is not None else None,
        vm_id=read_uuid("vm_id", vm_id) if names_vm else None,
        request={**body, **fields},
        fence=read_fence(request),
    )


def read_revoked(request: web.Request, operation_id: str, body: Mapping[str, Any]) -> Order:
    """The order that is taken back, as far as its giver has to name it. Raises `Problem`."""
    type_ = body.get("type")
    if type_ not in REVOCABLE:
        raise invalid("type", f"{_shown(type_)} can't be taken back", ", ".join(REVOCABLE))
    return Order(
        id=operation_id,
        type=OperationType(type_),
        volume_id=read_uuid("volume_id", body.get("volume_id")),
        vm_id=None,
        request={"revoked": True},
        fence=read_fence(request),
    )


def check_export(body: Mapping[str, Any]) -> None:
    if not isinstance(body.get("export", True), bool):
        raise invalid("export", "it is neither true nor false", "true or false")


def check_create(body: Mapping[str, Any]) -> None:
    name, size = body.get("name"), body.get("size")
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME:
        raise invalid("name", f"{_shown(name)} is no name", f"1 to {LONGEST_NAME} characters")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= LARGEST_VOLUME:
        raise invalid("size", f"{_shown(size)} is no size", "bytes, more than 0")
    for field in ("disk_offering_id", "zone_id"):
        read_uuid(field, body.get(field))


def read_wait(request: web.Request) -> float:
    """`?wait=SECONDS`; absent: 0."""
    text = request.query.get("wait", "0")
    try:
        wait_s = float(text)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s < float("inf"):
        raise invalid("wait", f"{_shown(text)} is no number of seconds", f"0 to {LONGEST_WAIT_S:g}")
    return min(wait_s, LONGEST_WAIT_S)


def read_filter(request: web.Request) -> Filter:
    query = request.query
    for name in query:
        if name not in {"type", "status", "volume_id", "vm_id", "limit"}:
            raise invalid(name, "this filter is not known here", "type, status, volume_id, vm_id, limit")
    type_, status = query.get("type"), query.get("status")
    if type_ is not None and type_ not in TYPES:
        raise invalid("type", f"{_shown(type_)} is no type", ", ".join(TYPES))
    if status is not None and status not in STATUSES:
        raise invalid("status", f"{_shown(status)} is no status", ", ".join(STATUSES))
    limit = query.get("limit", "50")
    if not limit.isdecimal() or not 1 <= int(limit[:9]) <= MOST_LISTED:
        raise invalid("limit", f"{_shown(limit)} is not allowed", f"1 to {MOST_LISTED}")
    volume_id, vm_id = query.get("volume_id"), query.get("vm_id")
    return Filter(
        type=OperationType(type_) if type_ is not None else None,
        status=OperationStatus(status) if status is not None else None,
        volume_id=read_uuid("volume_id", volume_id) if volume_id is not None else None,
        vm_id=read_uuid("vm_id", vm_id) if vm_id is not None else None,
        limit=int(limit),
    )


def read_fence(request: web.Request) -> int | None:
    """`X-Fence`; None: the caller has no lease. Raises `Problem`."""
    text = request.headers.get("X-Fence")
    if text is None:
        return None
    if text.isascii() and text.isdecimal() and int(text[:20]) <= LARGEST_FENCE:
        return int(text)
    raise _fence(text)


def _fence(text: str) -> Problem:
    return invalid("X-Fence", f"{_shown(text)} is no lease number", f"a whole number from 0 to {LARGEST_FENCE}")


def _is_text(body: dict[str, Any]) -> bool:
    """JSON can escape what no encoding takes: it could neither be stored nor answered."""
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    return "nothing" if value is None else repr(value)[:120]
