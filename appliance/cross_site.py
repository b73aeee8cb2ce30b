"""The refusal of changing requests that a foreign page may have sent: 403 `cross_site`."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from appliance.problem_documents import correlation_id_of, problem

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def cross_site_middleware(
    allowed_hosts: Iterable[str], refuse: Callable[[web.Request, str], web.Response] | None = None
) -> Middleware:
    """Lets through what changes nothing, what curl sends, and what our own page sends."""
    allowed = frozenset(host.lower() for host in allowed_hosts)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        reason = cross_site_reason(request, allowed)
        if reason is None:
            return await handler(request)
        return refuse(request, reason) if refuse is not None else cross_site_problem(request, reason)

    return guard


def cross_site_problem(request: web.Request, reason: str, /, **fields: Any) -> web.Response:
    return problem(
        HTTPStatus.FORBIDDEN,
        "cross_site",
        "Cross-site requests are refused",
        reason,
        correlation_id_of(request),
        **fields,
    )


def cross_site_reason(request: web.BaseRequest, allowed_hosts: frozenset[str]) -> str | None:
    """Why a request is refused, or None. curl sends neither Origin nor Sec-Fetch-Site and passes."""
    if request.method in SAFE_METHODS:
        return None
    host = request.headers.get("Host", "")
    if host and not is_own_host(host, allowed_hosts):
        return f"The Host {host[:255]!r} is neither loopback nor in http.allowed_hosts."
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site.lower() not in ("same-origin", "none"):
        return "The browser says that another site sent this request (Sec-Fetch-Site)."
    for origin in request.headers.getall("Origin", []):
        if urlsplit(origin).netloc.lower() != host.lower() or not host:
            return f"The Origin {origin[:255]!r} is not this daemon."
    return None


def is_own_host(host: str, allowed_hosts: frozenset[str]) -> bool:
    """Whether a Host header names loopback or an allowed host; the allowed may be written with or without port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name in allowed_hosts or host.lower() in allowed_hosts:
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
