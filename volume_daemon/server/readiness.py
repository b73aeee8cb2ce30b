"""Whether the daemon can work yet; until then it answers why not, and takes nothing in."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from volume_daemon.server.refusals import Problem

TOLD_ALWAYS = ("/health", "/metrics")


class Readiness:
    """What is missing, set by who looks for it."""

    def __init__(self) -> None:
        self._code = "database_unavailable"
        self.reason: str | None = "The start has not come to its end yet."
        self.looked = asyncio.Event()
        """Everything was looked for once."""

    def lack(self, code: str, reason: str) -> None:
        self._code, self.reason = code, reason
        self.looked.set()

    def complete(self) -> None:
        self.reason = None
        self.looked.set()

    def require(self) -> None:
        """Raises `Problem` 503."""
        if self.reason is not None:
            raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, self._code, self.reason)


def readiness_middleware(readiness: Readiness) -> Middleware:
    """What is open must be gone on with first, in its order, so that nothing new is accepted before."""

    @web.middleware
    async def require_readiness(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.endswith(TOLD_ALWAYS):
            readiness.require()
        return await handler(request)

    return require_readiness
