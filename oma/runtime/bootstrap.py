"""The composition root: from settings to a daemon whose parts know each other, with nothing started yet."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from appliance.settings import Settings
from oma.adapters.volume_daemon import VolumeDaemonVolumes
from oma.domain.evidence import GuardLimits
from oma.domain.jobs import ClaimedJob
from oma.gui.pages import add_routes
from oma.http.app import build_app
from oma.http.site import Site
from oma.ports import Clock
from oma.runtime.clock import RandomIds, SystemClock
from oma.runtime.cloudstack import CloudConnection
from oma.runtime.database import Database
from oma.runtime.loops import Loop
from oma.runtime.metrics import Metrics
from oma.runtime.worker import Worker, WorkerPorts
from oma.service.deps import Deps
from oma.workflow.bus import EventBus
from oma.workflow.run import Figures, Tools
from oma.workflow.runner import run_job
from oma.workflow.sweep import SweptCloud, SweptInventory, SweptVolumes
from volume_daemon.client import VolumeDaemonClient

DATABASE_S = 2.0
REREAD_S = 15.0
COUNT_S = 5.0
SHORTEST_CLAIM_S = 5.0
UNAUTHORIZED = "unauthorized"


@dataclass(frozen=True, slots=True)
class Parts:
    """The daemon, put together. `until_stop` end when the stop begins, `until_closed` when the runs have ended."""

    settings: Settings
    deps: Deps
    database: Database
    cloud: CloudConnection
    volume_daemon: VolumeDaemonClient
    worker: Worker
    app: web.Application
    until_stop: tuple[Loop, ...]
    until_closed: tuple[Loop, ...]


def build(settings: Settings, env: Mapping[str, str]) -> Parts:
    """Opens nothing and may be called anywhere; it reads the page's templates."""
    clock, ids, bus, metrics = SystemClock(), RandomIds(), EventBus(), Metrics()
    bus.on_event(metrics.on_event)
    database = Database(settings.database, bus.publish)
    look_again = asyncio.Event()

    def observe_cloudstack(command: str, result: str, seconds: float) -> None:
        metrics.observe_cloudstack(command, result, seconds)
        if result == UNAUTHORIZED:
            look_again.set()

    cloud = CloudConnection(settings.cloudstack, env, lambda: database.door, observe_cloudstack)
    volume_daemon = VolumeDaemonClient(settings.volume_daemon.url, timeout_s=settings.volume_daemon.timeout_s)
    deps = Deps(
        inventory=SweptInventory(database.inventory),
        journal=database.journal,
        jobs=database.jobs,
        cloud=SweptCloud(cloud.cloud),
        volumes=SweptVolumes(VolumeDaemonVolumes(volume_daemon)),
        clock=clock,
        ids=ids,
        bus=bus,
        limits=GuardLimits(
            alive_s=settings.guards.alive_s,
            oma_identity=settings.oma.identity,
            installation=settings.oma.installation,
        ),
        observe_timeout_s=settings.guards.observe_timeout_s,
        busy_wait_s=settings.workflow.busy_wait_s,
    )
    worker = build_worker(settings, deps)
    opening = Loop("database", database.look_once, clock, interval_s=DATABASE_S)
    return Parts(
        settings=settings,
        deps=deps,
        database=database,
        cloud=cloud,
        volume_daemon=volume_daemon,
        worker=worker,
        app=build_site(settings, deps, database, metrics),
        until_stop=(
            opening,
            build_endpoint_loop(opening, cloud, clock, look_again),
            build_claim_loop(settings, deps, database, worker),
            build_count_loop(deps, database, metrics),
        ),
        until_closed=(build_lease_loop(settings, database, worker, clock),),
    )


def build_worker(settings: Settings, deps: Deps) -> Worker:
    tools = Tools(
        inventory=deps.inventory,
        journal_store=deps.journal,
        cloud=deps.cloud,
        volumes=deps.volumes,
        clock=deps.clock,
        ids=deps.ids,
        bus=deps.bus,
        limits=deps.limits,
        figures=Figures(
            lease_s=settings.workflow.lease_s,
            expires_s=settings.cloudstack.expires_s,
            operation_timeout_s=settings.volume_daemon.operation_timeout_s,
            observe_timeout_s=settings.guards.observe_timeout_s,
            busy_wait_s=settings.workflow.busy_wait_s,
            stopped_again_s=settings.guards.stopped_again_s,
            stop_wait_s=settings.workflow.stop_wait_s,
        ),
        stop=deps.stopping,
    )

    async def run(claimed: ClaimedJob) -> str:
        return await run_job(claimed, tools)

    return Worker(
        WorkerPorts(deps.journal, deps.jobs, deps.clock, deps.ids, deps.bus.publish),
        run,
        owner=f"{socket.gethostname()}:{os.getpid()}:{deps.ids.new_id()[:8]}"[-64:],
        max_jobs=settings.workflow.max_jobs,
        lease_s=settings.workflow.lease_s,
        wake=deps.wake,
    )


def build_site(settings: Settings, deps: Deps, database: Database, metrics: Metrics) -> web.Application:
    """The API and the page in one application."""
    site = Site(
        deps=deps,
        sync_wait_s=settings.http.sync_wait_s,
        allowed_hosts=settings.http.allowed_hosts,
        unready=lambda: database.reason,
        render_metrics=metrics.render,
        observe_request=metrics.observe_request,
    )
    app = build_app(site)
    add_routes(app, deps)
    return app


def build_endpoint_loop(opening: Loop, cloud: CloudConnection, clock: Clock, look_again: asyncio.Event) -> Loop:
    """The endpoint may stand in the database, so that is looked for first."""

    async def refresh() -> str | None:
        await opening.first_turn.wait()
        return await cloud.refresh()

    return Loop("cloudstack", refresh, clock, interval_s=REREAD_S, wake=look_again)


def build_claim_loop(settings: Settings, deps: Deps, database: Database, worker: Worker) -> Loop:
    async def claim() -> str | None:
        return await worker.claim() if database.is_open else None

    interval_s = min(settings.workflow.lease_s / 3, SHORTEST_CLAIM_S)
    return Loop("worker", claim, deps.clock, interval_s=interval_s, wake=deps.wake)


def build_lease_loop(settings: Settings, database: Database, worker: Worker, clock: Clock) -> Loop:
    async def renew() -> str | None:
        return await worker.renew() if database.is_open else None

    return Loop("leases", renew, clock, interval_s=settings.workflow.lease_s / 3)


def build_count_loop(deps: Deps, database: Database, metrics: Metrics) -> Loop:
    async def count() -> str | None:
        if database.is_open:
            jobs, issues = await asyncio.gather(deps.jobs.count_jobs(), deps.jobs.list_issues())
            metrics.set_counts(jobs, issues, deps.clock.now())
        return None

    return Loop("counts", count, deps.clock, interval_s=COUNT_S)
