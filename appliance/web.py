"""The web manners of both daemons: correlation ids, problem documents, one log line per request.

What belongs to them and is larger stands beside: `problem_documents`, `cross_site`, `serving`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from uuid import uuid4

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from appliance.cross_site import cross_site_middleware, cross_site_problem
from appliance.problem_documents import (
    CORRELATION_HEADER,
    CORRELATION_ID,
    LARGEST_BODY,
    as_json,
    correlation_id_of,
    framework_detail,
    framework_problem,
    internal_problem,
    problem,
    unreadable_problem,
)
from appliance.serving import LONGEST_LINE, bind_site, print_listening, serve_site

__all__ = [
    "CORRELATION_HEADER",
    "CORRELATION_ID",
    "LARGEST_BODY",
    "LONGEST_LINE",
    "as_json",
    "bind_site",
    "correlation_id_of",
    "correlation_middleware",
    "cross_site_middleware",
    "cross_site_problem",
    "framework_detail",
    "framework_problem",
    "internal_problem",
    "print_listening",
    "problem",
    "problem_middleware",
    "request_log_middleware",
    "serve_site",
]

SANE_CORRELATION_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
log = structlog.get_logger(__name__)


def correlation_middleware(new_id: Callable[[], str] = lambda: str(uuid4())) -> Middleware:
    """Takes the caller's `X-Correlation-ID` where it is sane, else a new one; logs and the answer carry it."""

    @web.middleware
    async def correlate(request: web.Request, handler: Handler) -> web.StreamResponse:
        offered = request.headers.get(CORRELATION_HEADER, "")
        correlation_id = offered if SANE_CORRELATION_ID.match(offered) else new_id()
        request[CORRELATION_ID] = correlation_id
        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            response = await handler(request)
        if not response.prepared:
            response.headers[CORRELATION_HEADER] = correlation_id
        return response

    return correlate


def problem_middleware(
    as_problem: Callable[[web.Request, Exception], web.Response | None],
    internal: Callable[[web.Request], web.Response] = internal_problem,
) -> Middleware:
    """The outermost edge of a request: every exception becomes a problem document, none becomes a traceback.

    `as_problem` maps the daemon's own errors and, where it wants to, the framework's; what it does not know (None) is
    logged in full and answered by `internal`.
    """

    @web.middleware
    async def map_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.RequestPayloadError:
            return unreadable_problem(request)
        except ConnectionError:
            # Nobody is left to read the answer, and there is nothing to mend.
            if request.transport is None or request.transport.is_closing():
                return unreadable_problem(request)
            raise
        except Exception as error:
            answer = as_problem(request, error)
            if answer is not None:
                return answer
            if isinstance(error, web.HTTPException):
                if error.status < HTTPStatus.BAD_REQUEST:
                    raise
                return framework_problem(request, error)
            log.exception("A request failed in a way nobody foresaw.", path=request.path)
            return internal(request)

    return map_problems


def request_log_middleware(observe: Callable[[str, int, float], None] | None = None) -> Middleware:
    """One canonical line per request. `observe` gets route template, status and seconds."""

    @web.middleware
    async def log_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        loop_time = asyncio.get_running_loop().time
        began = loop_time()
        status = 0
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            seconds = loop_time() - began
            route = route_of(request)
            log.info(
                "request",
                method=request.method,
                path=request.rel_url.raw_path[:512],
                route=route,
                status=status,
                seconds=round(seconds, 6),
                remote=request.remote,
            )
            if observe is not None:
                observe(route, status, seconds)
        return response

    return log_request


def route_of(request: web.Request) -> str:
    """The route's template, never the path itself: metrics must not grow with names."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unmatched"
