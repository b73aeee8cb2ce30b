"""The real application over stubbed ports, served on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from appliance.web import serve_site
from oma.gui.pages import add_routes
from oma.http.app import build_app
from oma.http.site import Site
from tests.unit.gui.stubs import StubDaemon


@asynccontextmanager
async def serve(daemon: StubDaemon) -> AsyncIterator[str]:
    """The page's address."""
    app = await asyncio.to_thread(build_app, Site(deps=daemon.deps))
    add_routes(app, daemon.deps)
    runner, url = await serve_site(app, "127.0.0.1", 0)
    try:
        yield url
    finally:
        daemon.bus.close()
        await runner.cleanup()
