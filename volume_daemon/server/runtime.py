"""The composition root: builds the daemon from its settings, runs it, and takes it down in order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web
from structlog import get_logger

from appliance.settings import Settings
from appliance.systemd import Notifier, watchdog_interval_s
from appliance.web import print_listening, serve_site
from database.door import Door
from database.errors import DatabaseUnavailable, SchemaOutdated
from ossea.client import CloudStack
from ossea.credentials import CredentialsError, Endpoint
from volume_daemon.server.answers import Answers
from volume_daemon.server.app import build_app
from volume_daemon.server.cloud import VolumeReader
from volume_daemon.server.devices import DeviceWatch
from volume_daemon.server.endpoint import from_cs, from_rows, from_settings
from volume_daemon.server.finish import Finisher
from volume_daemon.server.health import Health
from volume_daemon.server.metrics import Metrics
from volume_daemon.server.nbd import NbdFiles
from volume_daemon.server.operations import Operations
from volume_daemon.server.pursuit import Pursuit
from volume_daemon.server.queue import FairQueue, Turns
from volume_daemon.server.records import Figures
from volume_daemon.server.routes import Routes
from volume_daemon.server.store import Store
from volume_daemon.server.withdrawal import Withdrawal

log = get_logger(__name__)
SHUTDOWN_TIMEOUT_S = 2.0


class StartFailed(Exception):
    """The daemon cannot run; the text says why and what to do."""


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
        async with serving(settings, env) as url:
            print_listening("volume-daemon", url)
            notifier.ready(f"Listening on {url}")
            await _until(stop, notifier, env)
            notifier.stopping()
    except (DatabaseUnavailable, CredentialsError) as error:
        raise StartFailed(str(error)) from None
    except SchemaOutdated as error:
        raise StartFailed(error.reason) from None
    except OSError as error:
        raise StartFailed(f"the daemon cannot start: {error}") from None


@asynccontextmanager
async def serving(settings: Settings, env: Mapping[str, str]) -> AsyncIterator[str]:
    """The whole daemon, listening; yields its address. Operations that are open at the end go on at the next start."""
    mine = settings.volume_daemon
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        door = await _open_door(settings)
        stack.push_async_callback(door.close)
        cloud = await stack.enter_async_context(
            _build_cloud(await _find_endpoint(settings, door, env), settings, metrics)
        )
        devices = DeviceWatch(mine.device_root, mine.product_uuid_path, now)
        stack.push_async_callback(devices.stop)
        await devices.start()
        reader = VolumeReader(cloud)
        stack.push_async_callback(reader.aclose)
        store = await Store.open(door, _figures(settings), now)
        parts = build_parts(settings, Outside(cloud, reader, store, devices), metrics)
        stack.push_async_callback(parts.operations.stop)
        recovered = await parts.operations.recover()
        log.info("Open operations are gone on with.", count=recovered)
        runner, url = await serve_site(parts.app, mine.host, mine.port, shutdown_timeout_s=SHUTDOWN_TIMEOUT_S)
        try:
            yield url
        finally:
            # Long polls wait for operations, so those are let go first; then nothing holds the connections.
            await parts.operations.stop()
            await runner.cleanup()


@dataclass(frozen=True, slots=True)
class Outside:
    """What the daemon deals with."""

    cloud: CloudStack
    reader: VolumeReader
    store: Store
    devices: DeviceWatch


@dataclass(frozen=True, slots=True)
class Parts:
    operations: Operations
    app: web.Application


def build_parts(settings: Settings, outside: Outside, metrics: Metrics) -> Parts:
    """Wires the daemon's own parts; starts nothing."""
    figures = _figures(settings)
    cloud, reader, store, devices = outside.cloud, outside.reader, outside.store, outside.devices
    nbd = NbdFiles(settings.volume_daemon.nbd_config_dir, settings.volume_daemon.nbd_reload_command)
    turns = Turns(FairQueue(figures.outstanding_per_vm))
    withdrawal = Withdrawal(store, nbd)
    operations = Operations(
        store=store,
        pursuit=Pursuit(
            cloud=cloud, reader=reader, store=store, turns=turns, withdrawal=withdrawal, figures=figures, now=now
        ),
        finisher=Finisher(
            cloud=cloud, store=store, devices=devices, nbd=nbd, withdrawal=withdrawal, figures=figures, now=now
        ),
        turns=turns,
        figures=figures,
        now=now,
        observer=metrics.observe_operation,
    )
    metrics.watch_queue(turns.queue, operations.count_live)
    answers = Answers(cloud=cloud, reader=reader, store=store, devices=devices, operations=operations)
    health = Health(
        cloud=cloud, store=store, devices=devices, nbd=nbd, operations=operations, queue=turns.queue, metrics=metrics
    )
    routes = Routes(operations, answers, devices)
    return Parts(operations, build_app(routes, health, metrics, settings.http.allowed_hosts))


def _figures(settings: Settings) -> Figures:
    mine = settings.volume_daemon
    return Figures(
        operation_timeout_s=mine.operation_timeout_s,
        outstanding_per_vm=mine.outstanding_per_vm,
        expires_s=settings.cloudstack.expires_s,
        device_wait_s=mine.operation_timeout_s,
        nbd_port=mine.nbd_port,
    )


def _build_cloud(endpoint: Endpoint, settings: Settings, metrics: Metrics) -> CloudStack:
    figures = settings.cloudstack
    return CloudStack(
        endpoint,
        timeout_s=figures.timeout_s,
        expires_s=figures.expires_s,
        poll_min_s=figures.poll_min_s,
        poll_max_s=figures.poll_max_s,
        observer=metrics.observe_call,
    )


async def _open_door(settings: Settings) -> Door:
    return await Door.open(
        settings.database.url,
        legacy_time_zone=settings.database.legacy_time_zone,
        accept_weak_durability=settings.database.accept_weak_durability,
        readers=settings.database.readers,
    )


async def _find_endpoint(settings: Settings, door: Door, env: Mapping[str, str]) -> Endpoint:
    found = from_settings(settings.cloudstack)
    if found is None:
        found = await door.read(lambda connection: from_rows(connection, settings.cloudstack))
    return found or await from_cs(settings.cloudstack, env)


async def _until(stop: asyncio.Event, notifier: Notifier, env: Mapping[str, str]) -> None:
    """Pings the watchdog from the loop that does the work: a loop that stands still pings no more."""
    interval_s = watchdog_interval_s(env)
    while not stop.is_set():
        try:
            async with asyncio.timeout(interval_s):
                await stop.wait()
        except TimeoutError:
            notifier.watchdog()
