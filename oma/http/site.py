"""What the handlers work with, and the shape of a route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from appliance.web import as_json
from oma.service.deps import Deps

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Site:
    """The use cases' dependencies and the site's own figures.

    `unready` gives the reason why the daemon is not ready, or None. `render_metrics` gives the exposition and its
    content type. `observe_request` is told route template, status and seconds of every request.
    """

    deps: Deps
    sync_wait_s: float = 3300.0
    heartbeat_s: float = 15.0
    allowed_hosts: tuple[str, ...] = ()
    unready: Callable[[], str | None] = lambda: None
    render_metrics: Callable[[], tuple[bytes, str]] = lambda: (b"", "text/plain; charset=utf-8")
    observe_request: Callable[[str, int, float], None] | None = None


SITE: Final = web.AppKey("site", Site)


@dataclass(frozen=True, slots=True)
class Route:
    """A route and, next to it, what the OpenAPI document says of it.

    `pattern` is aiohttp's path where it differs from the documented one.
    """

    method: str
    path: str
    handler: Handler
    operation: Mapping[str, Any]
    pattern: str | None = None
    name: str | None = None

    def add_to(self, app: web.Application) -> None:
        resource = app.router.add_resource(self.pattern or self.path, name=self.name)
        resource.add_route(self.method, self.handler)


def site_of(request: web.Request) -> Site:
    return request.app[SITE]


def answer_json(body: Mapping[str, Any], status: int = HTTPStatus.OK, **headers: str) -> web.Response:
    return web.Response(
        status=status,
        text=as_json(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store", **{name.replace("_", "-"): value for name, value in headers.items()}},
    )
