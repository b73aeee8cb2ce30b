"""The daemon's life: start in order, serve, stop in stages with a deadline each."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Mapping

import structlog
from aiohttp import web

from appliance.logs import configure_logs
from appliance.settings import Settings
from appliance.systemd import Notifier, watchdog_interval_s
from appliance.web import print_listening, serve_site
from oma.runtime.bootstrap import Parts, build
from oma.runtime.loops import Loop, Pulse
from oma.runtime.signals import StopSignals

log = structlog.get_logger(__name__)

FIRST_LOOK_S = 5.0
"""Longest time that the start waits for the database and CloudStack's endpoint; later they are waited for beside."""
CLOSE_S = 5.0
"""Longest time that each stage of the stop may take, besides the runs' own."""


async def serve(settings: Settings, env: Mapping[str, str] | None = None, signals: StopSignals | None = None) -> int:
    """Runs the daemon until a signal; the process's exit status.

    It serves as soon as it listens. While the database can't be used, `/readyz` says why and nothing else is done.
    """
    env = os.environ if env is None else env
    began = time.monotonic()
    await asyncio.to_thread(configure_logs, settings.log.level, settings.log.format)
    notifier, signals = Notifier.from_env(env), signals or StopSignals()
    # Templates are read from the disk: not in the event loop.
    parts = await asyncio.to_thread(build, settings, env)
    try:
        parts.presence.hold()
    except OSError as error:
        # Without it another daemon could take this one for dead.
        log.error("No socket can be held that shows that this daemon lives.", reason=error.strerror)  # noqa: TRY400
        return 1
    with signals.installed():
        background = Background(parts, notifier, watchdog_interval_s(env))
        background.start()
        await background.first_look(FIRST_LOOK_S)
        try:
            runner, url = await serve_site(parts.app, settings.http.host, settings.http.port)
        except OSError as error:
            log.error("The address can't be listened on.", port=settings.http.port, reason=error.strerror)  # noqa: TRY400
            await stop(parts, background, None, notifier)
            return 1
        print_listening("oma", url)
        notifier.ready(parts.database.reason or f"Listening on {url}")
        log.info("The daemon serves.", url=url, after_s=round(time.monotonic() - began, 3))
        try:
            await signals.asked.wait()
        finally:
            await stop(parts, background, runner, notifier)
    return 0


class Background:
    """All loops, as tasks. `closing` ends those that outlive the beginning of the stop."""

    def __init__(self, parts: Parts, notifier: Notifier, watchdog_s: float | None) -> None:
        self.closing = asyncio.Event()
        self._parts = parts
        self._notifier = notifier
        self._status: str | None = None
        clock = parts.deps.clock
        watched = (*parts.until_stop, *parts.until_closed)
        status = Loop("status", self._tell, clock, interval_s=1.0)
        pulse = Pulse((*watched, status), clock, notifier.watchdog)
        self._until_stop = (*parts.until_stop, status)
        # The watchdog is told on through the drain, as long as the loops that are left turn.
        draining = Pulse(parts.until_closed, clock, notifier.watchdog)

        async def beat() -> str | None:
            return await (draining if parts.deps.stopping.is_set() else pulse).beat()

        beating = () if watchdog_s is None else (Loop("watchdog", beat, clock, interval_s=watchdog_s),)
        self._until_closed = (*parts.until_closed, *beating)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        stopping = self._parts.deps.stopping
        pairs = [(loop, stopping) for loop in self._until_stop] + [(loop, self.closing) for loop in self._until_closed]
        self._tasks = [asyncio.create_task(loop.run(until), name=f"loop-{loop.name}") for loop, until in pairs]

    async def first_look(self, timeout_s: float) -> None:
        """Waits until everything that the daemon needs has been looked for once."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*(loop.first_turn.wait() for loop in self._parts.until_stop))
        except TimeoutError:
            log.warning("The start goes on without the database or CloudStack's endpoint; both are looked for beside.")

    async def end(self) -> None:
        self.closing.set()
        await asyncio.gather(*self._tasks)

    def cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _tell(self) -> str | None:
        """The service manager's status line follows what we can do."""
        running = self._parts.worker.running
        status = self._parts.database.reason or f"Ready; {running} {'job runs' if running == 1 else 'jobs run'}"
        if status != self._status:
            self._notifier.status(status)
            self._status = status
        return None


async def stop(parts: Parts, background: Background, runner: web.AppRunner | None, notifier: Notifier) -> None:
    """Stage by stage: accept nothing, let runs reach a safe point, give leases back, close clients and database."""
    notifier.stopping()
    parts.deps.stopping.set()
    # Waiting callers get their 202 and streams end; nobody new is let in.
    parts.deps.bus.close()
    if runner is not None:
        await _within("the listening sockets", CLOSE_S, *(site.stop() for site in runner.sites))
    log.info(await parts.worker.drain(parts.settings.workflow.stop_timeout_s))
    if not await _within("the loops", CLOSE_S, background.end()):
        background.cancel()
    if runner is not None:
        await _within("the open requests", 2 * CLOSE_S, runner.cleanup())
    await _within("the trials", CLOSE_S, parts.targets.breakers.aclose())
    await _within("the clients", CLOSE_S, parts.cloud.close(), parts.volume_daemon.aclose())
    await _within("the database", CLOSE_S, parts.database.close())
    parts.presence.close()
    log.info("The daemon has stopped.")


async def _within(what: str, seconds: float, *work: Awaitable[None]) -> bool:
    """Does one stage; a stage that fails or takes too long is logged, and the next one follows all the same."""
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*work)
    except TimeoutError:
        log.warning("A stage of the stop took too long.", what=what, seconds=seconds)
        return False
    except Exception:
        log.exception("A stage of the stop failed.", what=what)
        return False
    return True
