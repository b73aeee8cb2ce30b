"""The simulator's process: both listeners, signals, the end."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from dataclasses import dataclass

from aiohttp import web

from ossea.simulator.admin import AdminApi
from ossea.simulator.api import CloudStackApi
from ossea.simulator.service import Place, Simulator

_DRAIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen, and the one key that is known; port 0: any free one."""

    host: str
    port: int
    admin_port: int
    api_key: str
    secret_key: str


async def serve(place: Place, listen: Listen) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends at once."""
    stop = asyncio.Event()
    _catch_signals(stop)
    simulator = Simulator(place)
    await simulator.open()
    runners: list[web.AppRunner] = []
    try:
        api = CloudStackApi(simulator, listen.api_key, listen.secret_key)
        url = await _listen(runners, api.app(), listen.host, listen.port)
        admin = await _listen(runners, AdminApi(simulator).app(), listen.host, listen.admin_port)
        line = {"event": "listening", "program": "ossea-sim", "url": url, "admin": admin}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        await _until(stop, simulator.driver)
    finally:
        for runner in runners:
            await runner.cleanup()
        await simulator.close()


async def _until(stop: asyncio.Event, driver: asyncio.Task[None]) -> None:
    """Until the stop, or until the simulator itself breaks, which is raised."""
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait([stopped, driver], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if driver.done():
        driver.result()


async def _listen(runners: list[web.AppRunner], app: web.Application, host: str, port: int) -> str:
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_DRAIN_S)
    runners.append(runner)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound = runner.addresses[0][1]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{bound}"


def _catch_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
