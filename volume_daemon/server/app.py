"""The web application: routes between the manners that both daemons share."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from aiohttp import web

from appliance.web import (
    LARGEST_BODY,
    correlation_id_of,
    correlation_middleware,
    cross_site_middleware,
    problem,
    problem_middleware,
    request_log_middleware,
)
from database.errors import DatabaseUnavailable, SchemaOutdated
from volume_daemon.server.health import Health
from volume_daemon.server.holder_routes import HolderRoutes
from volume_daemon.server.metrics import Metrics
from volume_daemon.server.readiness import Readiness, readiness_middleware
from volume_daemon.server.refusals import TITLES, Problem
from volume_daemon.server.routes import Routes

PREFIX = "/api/v1"


def build_app(
    routes: Routes,
    holders: HolderRoutes,
    health: Health,
    metrics: Metrics,
    *,
    readiness: Readiness,
    allowed_hosts: Iterable[str],
) -> web.Application:
    app = web.Application(
        middlewares=[
            correlation_middleware(),
            request_log_middleware(metrics.observe_request),
            problem_middleware(as_problem),
            cross_site_middleware(allowed_hosts),
            readiness_middleware(readiness),
        ],
        client_max_size=LARGEST_BODY,
    )
    routes.add_to(app, PREFIX)
    holders.add_to(app, PREFIX)
    health.add_to(app)
    return app


def as_problem(request: web.Request, error: Exception) -> web.Response | None:
    """Our own errors as problem documents; None for what is not ours."""
    correlation_id = correlation_id_of(request)
    if isinstance(error, Problem):
        return problem(error.status, error.code, error.title, error.detail, correlation_id, **error.fields)
    if isinstance(error, DatabaseUnavailable | SchemaOutdated):
        code = "database_unavailable"
        disk_full = isinstance(error, DatabaseUnavailable) and error.disk_full
        status = HTTPStatus.SERVICE_UNAVAILABLE
        return problem(status, code, TITLES[code], error.reason, correlation_id, disk_full=disk_full)
    return None
