"""The composition root: builds the daemon from its settings, runs it, and takes it down in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web
from structlog import get_logger

from appliance.settings import Settings
from appliance.systemd import Notifier, watchdog_interval_s
from appliance.web import bind_site, print_listening, serve_site
from ossea.client import CloudStack
from ossea.credentials import Endpoint
from volume_daemon.server.answers import Answers
from volume_daemon.server.app import build_app
from volume_daemon.server.calls import Calls
from volume_daemon.server.carrying import Carrier
from volume_daemon.server.cloud import VolumeReader
from volume_daemon.server.devices import DeviceWatch
from volume_daemon.server.ending import HolderEnder
from volume_daemon.server.endpoint import find_endpoint
from volume_daemon.server.finish import Finisher
from volume_daemon.server.health import Health
from volume_daemon.server.holder_routes import HolderRoutes
from volume_daemon.server.holders import HolderFigures, HolderWatch
from volume_daemon.server.link import CloudLink, Clouds
from volume_daemon.server.metrics import Metrics
from volume_daemon.server.nbd import NbdFiles
from volume_daemon.server.opening import DatabaseFigures, Opening
from volume_daemon.server.operations import Observer, Operations
from volume_daemon.server.pursuit import Pursuit
from volume_daemon.server.queue import FairQueue, Turns
from volume_daemon.server.readiness import Readiness
from volume_daemon.server.records import Figures
from volume_daemon.server.routes import Routes
from volume_daemon.server.store import Store
from volume_daemon.server.withdrawal import Withdrawal

log = get_logger(__name__)
SHUTDOWN_TIMEOUT_S = 2.0
FIRST_LOOK_S = 5.0
"""Longest time that the start waits for the database and the endpoint before it listens; later it waits beside."""
STATUS_S = 1.0


class StartFailed(Exception):
    """The daemon cannot run, whatever may yet come; the text says why and what to do."""


def now() -> datetime:
    return datetime.now(UTC)


async def run(settings: Settings, env: Mapping[str, str]) -> None:
    """Serves until SIGTERM or SIGINT. Raises `StartFailed`."""
    notifier = Notifier.from_env(env)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with starting(settings, env) as running:
            print_listening("volume-daemon", running.url)
            notifier.ready(running.status)
            await _until(stop, running, notifier, env)
            notifier.stopping()
    except OSError as error:
        raise StartFailed(f"the daemon cannot start: {error}") from None


@dataclass(frozen=True, slots=True)
class Running:
    """The daemon, listening."""

    url: str
    readiness: Readiness
    opening: Opening
    devices: DeviceWatch

    @property
    def status(self) -> str:
        return self.readiness.reason or f"Listening on {self.url}"

    @property
    def is_alive(self) -> bool:
        """Whether everything that goes on in the background does."""
        return self.opening.is_alive and self.devices.is_alive


@asynccontextmanager
async def serving(settings: Settings, env: Mapping[str, str]) -> AsyncIterator[str]:
    """The whole daemon, listening; yields its address."""
    async with starting(settings, env) as running:
        yield running.url


@asynccontextmanager
async def starting(settings: Settings, env: Mapping[str, str]) -> AsyncIterator[Running]:
    """Listens also while the database or CloudStack's endpoint is missing, and tells which. Raises `OSError`.

    Operations that are open at the end go on at the next start.
    """
    mine = settings.volume_daemon
    metrics, readiness, link = Metrics(), Readiness(), CloudLink()
    async with AsyncExitStack() as stack:
        # First of all: where another daemon serves already, the journal is its own, and nothing of it is gone on with.
        bound = stack.enter_context(await asyncio.to_thread(bind_site, mine.host, mine.port))
        devices = DeviceWatch(mine.device_root, mine.product_uuid_path, now)
        reader, store = VolumeReader(link), Store(_figures(settings), now)
        parts = build_parts(settings, Outside(link, reader, store, devices, readiness), metrics)

        async def go_on() -> None:
            await parts.nbd.tidy()
            log.info("Open operations are gone on with.", count=await parts.operations.recover())

        opening = Opening(
            database=_database_figures(settings),
            find=lambda door: find_endpoint(settings.cloudstack, door, env),
            build_cloud=lambda endpoint: _build_cloud(endpoint, settings, metrics),
            store=store,
            link=link,
            readiness=readiness,
            go_on=go_on,
            let_go=parts.operations.stop,
        )
        for close in (opening.aclose, reader.aclose, devices.stop, parts.holders.stop):
            stack.push_async_callback(close)
        await devices.start()
        await parts.holders.start()
        opening.start()
        # Nothing is let go of while an operation may still be started, and no operation while its parts are.
        stack.push_async_callback(parts.operations.stop)
        stack.push_async_callback(opening.stop)
        await _first_look(readiness)
        runner, url = await serve_site(
            parts.app, mine.host, mine.port, shutdown_timeout_s=SHUTDOWN_TIMEOUT_S, bound=bound
        )
        try:
            yield Running(url, readiness, opening, devices)
        finally:
            # Long polls wait for operations, so those are let go first; then nothing holds the connections.
            await opening.stop()
            await parts.operations.stop()
            await runner.cleanup()


async def _first_look(readiness: Readiness) -> None:
    """Waits until the database and the endpoint have been looked for once, but not for ever."""
    with suppress(TimeoutError):
        async with asyncio.timeout(FIRST_LOOK_S):
            await readiness.looked.wait()


@dataclass(frozen=True, slots=True)
class Outside:
    """What the daemon deals with."""

    cloud: Clouds
    reader: VolumeReader
    store: Store
    devices: DeviceWatch
    readiness: Readiness


@dataclass(frozen=True, slots=True)
class Parts:
    operations: Operations
    holders: HolderWatch
    nbd: NbdFiles
    app: web.Application


def build_parts(settings: Settings, outside: Outside, metrics: Metrics) -> Parts:
    """Wires the daemon's own parts; starts nothing."""
    figures = _figures(settings)
    cloud, reader, store, devices = outside.cloud, outside.reader, outside.store, outside.devices
    mine = settings.volume_daemon
    nbd = NbdFiles(mine.nbd_config_dir, mine.nbd_reload_command, store.require_hold)
    turns = Turns(FairQueue(figures.outstanding_per_vm))
    operations = build_operations(
        outside, nbd=nbd, turns=turns, figures=figures, now=now, observer=metrics.observe_operation
    )
    metrics.watch_queue(turns.queue, operations.count_live)
    answers = Answers(cloud=cloud, reader=reader, store=store, devices=devices, operations=operations)
    health = Health(
        cloud=cloud,
        store=store,
        devices=devices,
        nbd=nbd,
        operations=operations,
        queue=turns.queue,
        metrics=metrics,
        readiness=outside.readiness,
    )
    holder_figures = _holder_figures(settings)
    holders = HolderWatch(devices, holder_figures, now)
    app = build_app(
        Routes(operations, answers),
        HolderRoutes(holders, HolderEnder(holders, store, holder_figures, now)),
        health,
        metrics,
        readiness=outside.readiness,
        allowed_hosts=settings.http.allowed_hosts,
    )
    return Parts(operations, holders, nbd, app)


def build_operations(
    outside: Outside,
    *,
    nbd: NbdFiles,
    turns: Turns,
    figures: Figures,
    now: Callable[[], datetime],
    observer: Observer | None = None,
) -> Operations:
    """What carries changes out, over whatever machine and CloudStack; starts nothing."""
    cloud, reader, store, devices = outside.cloud, outside.reader, outside.store, outside.devices
    withdrawal = Withdrawal(store, nbd)
    calls = Calls(cloud=cloud, reader=reader, store=store, turns=turns, withdrawal=withdrawal, figures=figures, now=now)
    carrier = Carrier(
        store=store,
        pursuit=Pursuit(cloud=cloud, reader=reader, store=store, turns=turns, calls=calls, figures=figures),
        finisher=Finisher(
            cloud=cloud, store=store, devices=devices, nbd=nbd, withdrawal=withdrawal, figures=figures, now=now
        ),
        turns=turns,
        figures=figures,
        now=now,
    )
    return Operations(store=store, carrier=carrier, turns=turns, figures=figures, now=now, observer=observer)


def _figures(settings: Settings) -> Figures:
    mine = settings.volume_daemon
    return Figures(
        operation_timeout_s=mine.operation_timeout_s,
        outstanding_per_vm=mine.outstanding_per_vm,
        cloudstack_wait_s=mine.cloudstack_wait_s,
        expires_s=settings.cloudstack.expires_s,
        expiry_margin_s=settings.cloudstack.late_s,
        job_memory_s=settings.cloudstack.job_expire_minutes * 60 / 2,
        device_wait_s=mine.operation_timeout_s,
        nbd_port=mine.nbd_port,
    )


def _database_figures(settings: Settings) -> DatabaseFigures:
    mine = settings.database
    return DatabaseFigures(mine.url, mine.legacy_time_zone, mine.accept_weak_durability, mine.readers)


def _holder_figures(settings: Settings) -> HolderFigures:
    mine = settings.volume_daemon
    return HolderFigures(
        proc_root=mine.proc_root,
        sys_root=mine.sys_root,
        scope=mine.holder_scope,
        scan_timeout_s=mine.holder_scan_timeout_s,
        term_s=mine.holder_term_s,
    )


def _build_cloud(endpoint: Endpoint, settings: Settings, metrics: Metrics) -> CloudStack:
    figures = settings.cloudstack
    return CloudStack(
        endpoint,
        timeout_s=figures.timeout_s,
        expires_s=figures.expires_s,
        poll_min_s=figures.poll_min_s,
        poll_max_s=figures.poll_max_s,
        throttled_s=figures.retry_total_s,
        observer=metrics.observe_call,
    )


async def _until(stop: asyncio.Event, running: Running, notifier: Notifier, env: Mapping[str, str]) -> None:
    """Tells the service manager how we are, and pings its watchdog: from the loop that does the work, and only while
    everything that works beside it is alive.
    """
    interval_s = watchdog_interval_s(env)
    status = running.status
    while not stop.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(min(STATUS_S, interval_s or STATUS_S)):
                await stop.wait()
        if running.status != status:
            status = running.status
            notifier.status(status)
        if interval_s is not None and running.is_alive:
            notifier.watchdog()
