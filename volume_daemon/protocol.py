"""What a request to the daemon carries, and what its answers mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from volume_daemon.errors import ErrorKind, VolumeDaemonError

T = TypeVar("T")
Json = Mapping[str, Any]

RETRY_AFTER = "retry_after_s"
"""Where an answer's `Retry-After` stands beside what it said."""


def change_headers(request_id: str | None, fence: int | None) -> dict[str, str]:
    headers = {}
    if request_id is not None:
        headers["Idempotency-Key"] = request_id
    if fence is not None:
        headers["X-Fence"] = str(fence)
    return headers


def parse_answer(status: int, data: Json, parse: Callable[[Json], T]) -> T:
    if status >= HTTPStatus.BAD_REQUEST:
        raise build_problem(status, data)
    try:
        return parse(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise build_broken(f"its answer lacks or garbles {error}") from None


def build_problem(status: int, data: Json) -> VolumeDaemonError:
    """A 4xx says that nothing was changed; a 5xx leaves it open."""
    if "code" not in data:
        return build_broken(f"HTTP {status} without a code", status)
    kind = ErrorKind.REFUSED if status < HTTPStatus.INTERNAL_SERVER_ERROR else ErrorKind.FAILED
    text = str(data.get("detail") or data.get("title") or f"HTTP {status}")
    return VolumeDaemonError(
        kind, str(data["code"]), text, status=status, fields=data, retry_after_s=data.get(RETRY_AFTER)
    )


def build_broken(what: str, status: int | None = None, retry_after_s: float | None = None) -> VolumeDaemonError:
    text = f"the Volume Daemon's answer is broken: {what}"
    return VolumeDaemonError(
        ErrorKind.BROKEN_ANSWER, "volume_daemon_error", text, status=status, retry_after_s=retry_after_s
    )
