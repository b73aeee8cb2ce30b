"""How the daemon is: a summary for people, two probes for programs, figures for Prometheus."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aiohttp import web

from oma.http.described import answers_json, answers_text, operation
from oma.http.schemas import health_entry
from oma.http.site import Route, answer_json, site_of
from oma.service.answers import as_rfc3339
from oma.service.queries import check_health


async def show_health(request: web.Request) -> web.Response:
    """503 only where nothing can be done at all; a dead upstream makes it `degraded`."""
    site = site_of(request)
    reason = site.unready()
    found = await check_health(site.deps)
    healthy = all(dependency.healthy for dependency in found)
    status = "unhealthy" if reason else "healthy" if healthy else "degraded"
    return answer_json(
        {
            "status": status,
            "timestamp": as_rfc3339(site.deps.clock.now()),
            "ready": reason is None,
            "reason": reason,
            "dependencies": [health_entry(dependency) for dependency in found],
        },
        HTTPStatus.SERVICE_UNAVAILABLE if reason else HTTPStatus.OK,
    )


async def show_liveness(_request: web.Request) -> web.Response:
    return answer_json({"status": "alive"})


async def show_readiness(request: web.Request) -> web.Response:
    site = site_of(request)
    reason = "The daemon is stopping." if site.deps.stopping.is_set() else site.unready()
    if reason is None:
        return answer_json({"status": "ready", "reason": None})
    return answer_json({"status": "not_ready", "reason": reason}, HTTPStatus.SERVICE_UNAVAILABLE)


async def show_metrics(request: web.Request) -> web.Response:
    body, content_type = site_of(request).render_metrics()
    return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


ROUTES: Final = (
    Route(
        "GET",
        "/health",
        show_health,
        operation(
            "showHealth",
            "How the daemon and each dependency are",
            {
                200: answers_json("Health", "It works, perhaps without one of the other systems."),
                503: answers_json("Health", "Nothing can be done; the reason stands there."),
            },
            tag="health",
        ),
    ),
    Route(
        "GET",
        "/livez",
        show_liveness,
        operation("showLiveness", "Whether it answers", {200: answers_json("Liveness", "It does.")}, tag="health"),
    ),
    Route(
        "GET",
        "/readyz",
        show_readiness,
        operation(
            "showReadiness",
            "Whether it takes work",
            {
                200: answers_json("Readiness", "It does."),
                503: answers_json("Readiness", "It does not; the reason stands there."),
            },
            tag="health",
        ),
    ),
    Route(
        "GET",
        "/metrics",
        show_metrics,
        operation("showMetrics", "Figures", {200: answers_text("text/plain", "Prometheus exposition.")}, tag="health"),
    ),
)
