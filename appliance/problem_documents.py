"""Problem documents (RFC 9457): the shape of every error that either daemon answers."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any
from uuid import uuid4

from aiohttp import web

CORRELATION_HEADER = "X-Correlation-ID"
CORRELATION_ID = web.RequestKey("correlation_id", str)
LARGEST_BODY = 1024 * 1024
"""Bytes of a request's body: what is much too long for its field is read, so that the field can be named."""

FRAMEWORK_CODES = {
    HTTPStatus.BAD_REQUEST: "bad_request",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "unsupported_media_type",
}


def problem(status: int, code: str, title: str, detail: str, correlation_id: str, **fields: Any) -> web.Response:
    """A problem document; `fields` are its extension members and never replace the standard ones."""
    standard = {
        "type": f"/docs/errors/{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "correlation_id": correlation_id,
    }
    return web.Response(
        status=status,
        # Half of a surrogate pair, quoted from a request, has no UTF-8; as JSON's own escape it can be told.
        body=as_json({**standard, **fields, **standard}).encode("utf-8", "backslashreplace"),
        content_type="application/problem+json",
        charset="utf-8",
        headers={CORRELATION_HEADER: correlation_id, "Cache-Control": "no-store"},
    )


def as_json(body: Any) -> str:
    """JSON as both daemons write it: readable Unicode, and unknown values as their text."""
    return json.dumps(body, ensure_ascii=False, default=str)


def correlation_id_of(request: web.BaseRequest) -> str:
    """The id under which this request is found again; a new one where none was accepted."""
    found = request.get(CORRELATION_ID)
    return found if found is not None else str(uuid4())


def framework_problem(request: web.BaseRequest, error: web.HTTPException, /, **more: Any) -> web.Response:
    """The web framework's own error (404, 405, 413 …) as a problem document."""
    status = HTTPStatus(error.status)
    fields = dict(more)
    headers: dict[str, str] = {}
    if isinstance(error, web.HTTPMethodNotAllowed):
        fields["allow"] = sorted(error.allowed_methods)
        headers["Allow"] = ", ".join(fields["allow"])
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        fields["limit_bytes"] = LARGEST_BODY
    code = FRAMEWORK_CODES.get(status, f"http_{status.value}")
    detail = framework_detail(request, error)
    answer = problem(status, code, error.reason, detail, correlation_id_of(request), **fields)
    answer.headers.update(headers)
    return answer


def framework_detail(request: web.BaseRequest, error: web.HTTPException) -> str:
    """What to do about it, in one sentence."""
    match error:
        case web.HTTPMethodNotAllowed():
            return f"{request.method} is not possible here; possible: {', '.join(sorted(error.allowed_methods))}."
        case web.HTTPNotFound():
            return "Nothing is to be found under this path; /docs lists what there is."
        case web.HTTPRequestEntityTooLarge():
            return f"The body is larger than {LARGEST_BODY} bytes; send less."
        case web.HTTPUnsupportedMediaType():
            return "The body has a type that is not understood; send JSON as application/json."
        case _:
            return HTTPStatus(error.status).description or error.reason


def internal_problem(request: web.BaseRequest, /, **fields: Any) -> web.Response:
    correlation_id = correlation_id_of(request)
    return problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal_error",
        "Something unexpected happened",
        f"Something unexpected happened; the daemon's log tells more under the correlation id {correlation_id}.",
        correlation_id,
        **fields,
    )


def unreadable_problem(request: web.BaseRequest) -> web.Response:
    return problem(
        HTTPStatus.BAD_REQUEST,
        "bad_request",
        "The request is not HTTP",
        "The request could not be read as HTTP/1.1.",
        correlation_id_of(request),
    )
