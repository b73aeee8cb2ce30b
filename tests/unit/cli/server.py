"""An API server in a thread of its own: the real application over stubbed ports, or a script of canned answers."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web

from appliance.web import serve_site
from oma.http.app import build_app
from oma.http.site import Site
from tests.unit.gui.stubs import StubDaemon

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class Server:
    """`url` is its address; its state belongs to the thread of `loop`."""

    url: str
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[[], None]) -> None:
        """Runs the function in the server's thread, to its end."""

        async def run() -> None:
            function()

        asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)


@contextmanager
def serve_in_thread(app: web.Application) -> Iterator[Server]:
    """Answers until the block is left."""
    started: threading.Event = threading.Event()
    addresses: list[str] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        runner, url = await serve_site(app, "127.0.0.1", 0, shutdown_timeout_s=0.1)
        addresses.append(url)
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), name="api")
    thread.start()
    try:
        assert started.wait(10), "the server did not start"
        yield Server(addresses[0], loop)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@contextmanager
def serve_daemon(daemon: StubDaemon) -> Iterator[Server]:
    with serve_in_thread(build_app(Site(deps=daemon.deps))) as server:
        yield server
        server.call(daemon.bus.close)


@contextmanager
def serve_script(*routes: tuple[str, str, Handler]) -> Iterator[str]:
    """`(method, path, handler)` each; everything else is the framework's 404."""
    app = web.Application()
    for method, path, handler in routes:
        app.router.add_route(method, path, handler)
    with serve_in_thread(app) as server:
        yield server.url
    _collect_half_made_connections()


def _collect_half_made_connections() -> None:
    """asyncio forgets to close a connection that it accepted while its server was closing (`Server._attach` asserts).

    The command opens such ones: it listens for events while it waits, and hangs up when the answer is there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
