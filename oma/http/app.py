"""The application: routes, middlewares, and what they work with."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from appliance.web import (
    LARGEST_BODY,
    Handler,
    correlation_middleware,
    cross_site_middleware,
    problem_middleware,
    request_log_middleware,
)
from oma.http import cleanups, control, docs, health, issues, jobs, sse, vms
from oma.http.openapi import build_openapi
from oma.http.problems import problem_of, refuse_cross_site, unforeseen
from oma.http.site import SITE, Route, Site

ROUTES: Final[tuple[Route, ...]] = (
    *cleanups.ROUTES,
    *vms.ROUTES,
    *jobs.ROUTES,
    *issues.ROUTES,
    *control.ROUTES,
    *sse.ROUTES,
    *health.ROUTES,
    *docs.ROUTES,
)

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
}


def build_app(site: Site) -> web.Application:
    """The API without the page; whoever composes the daemon may add routes before it is served."""
    app = web.Application(
        client_max_size=LARGEST_BODY,
        middlewares=(
            correlation_middleware(site.deps.ids.new_id),
            request_log_middleware(site.observe_request),
            _secure,
            problem_middleware(problem_of, unforeseen),
            cross_site_middleware(site.allowed_hosts, refuse_cross_site),
        ),
    )
    app[SITE] = site
    app[docs.OPENAPI] = build_openapi(ROUTES)
    for route in ROUTES:
        route.add_to(app)
    return app


@web.middleware
async def _secure(request: web.Request, handler: Handler) -> web.StreamResponse:
    """No page of ours is framed or guessed at; a page may bring its own, stricter words."""
    response = await handler(request)
    if not response.prepared:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
    return response
