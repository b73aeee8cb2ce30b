"""The composition root: from settings to a daemon whose parts know each other, with nothing started yet."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from aiohttp import web

from appliance.settings import Settings
from oma.adapters.volume_daemon import VolumeDaemonVolumes
from oma.domain.circuit import Outage
from oma.domain.evidence import GuardLimits
from oma.domain.jobs import ClaimedJob
from oma.gui.pages import add_routes
from oma.http.app import build_app
from oma.http.site import Site
from oma.ports import Clock, Controls, Ids, Inventory, JobReader, JournalStore
from oma.runtime.clock import RandomIds, SystemClock
from oma.runtime.cloudstack import CloudConnection
from oma.runtime.database import Database
from oma.runtime.keeping import build_epoch_loop, build_keeper, build_marker_loop, build_peer_loop
from oma.runtime.loops import Loop
from oma.runtime.metrics import Metrics
from oma.runtime.presence import Presence, build_owner
from oma.runtime.targets import Targets, build_circuit_loop, build_retries, build_targets, names_of
from oma.runtime.worker import Worker, WorkerPorts
from oma.service.deps import Deps
from oma.service.epochs import EpochKeeper
from oma.service.pausing import read_pauses
from oma.service.watching import Patience, Watcher
from oma.workflow.bus import EventBus
from oma.workflow.leases import LeaseTimes
from oma.workflow.run import Figures, Tools
from oma.workflow.runner import run_job
from oma.workflow.sweep import SweptInventory
from volume_daemon.client import VolumeDaemonClient

DATABASE_S = 2.0
REREAD_S = 15.0
COUNT_S = 5.0
PAUSES_S = 1.0
WATCH_S = 60.0
WATCH_PATIENCE_S = 1800.0
"""A turn of the watcher asks systems that may be slow to answer."""
SHORTEST_CLAIM_S = 5.0
UNAUTHORIZED = "unauthorized"


class Stores(Protocol):
    """The ports over one database."""

    @property
    def inventory(self) -> Inventory: ...

    @property
    def journal(self) -> JournalStore: ...

    @property
    def jobs(self) -> JobReader: ...

    @property
    def controls(self) -> Controls: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """The daemon, put together. `until_stop` end when the stop begins, `until_closed` when the runs have ended."""

    settings: Settings
    deps: Deps
    database: Database
    cloud: CloudConnection
    volume_daemon: VolumeDaemonClient
    targets: Targets
    worker: Worker
    presence: Presence
    app: web.Application
    until_stop: tuple[Loop, ...]
    until_closed: tuple[Loop, ...]


def build(settings: Settings, env: Mapping[str, str]) -> Parts:
    """Opens nothing and may be called anywhere; it reads the page's templates."""
    clock, ids, bus, metrics = SystemClock(), RandomIds(), EventBus(), Metrics()
    bus.on_event(metrics.on_event)
    database = Database(settings.database, bus.publish)
    look_again, opened = asyncio.Event(), asyncio.Event()

    def observe_cloudstack(command: str, result: str, seconds: float) -> None:
        metrics.observe_cloudstack(command, result, seconds)
        if result == UNAUTHORIZED:
            look_again.set()

    cloud = CloudConnection(settings.cloudstack, env, lambda: database.door, observe_cloudstack)
    volume_daemon = VolumeDaemonClient(settings.volume_daemon.url, timeout_s=settings.volume_daemon.timeout_s)
    targets = build_targets(settings, cloud.cloud, VolumeDaemonVolumes(volume_daemon), clock)
    deps = build_deps(settings, database, targets, clock=clock, ids=ids, bus=bus)
    deps = replace(deps, epochs=database.epochs)
    presence = Presence(build_owner(ids))
    worker = build_worker(settings, deps, targets, presence.owner)
    keeper = build_keeper(settings, env, deps, database, presence.owner, opened=opened)

    def tell_outages(outages: Sequence[Outage]) -> None:
        deps.brakes.set_outages(outages)
        metrics.set_circuits(names_of(outages))

    circuits = build_circuit_loop(targets, clock, tell_outages, deps.wake)
    opening = Loop("database", database.look_once, clock, interval_s=DATABASE_S)
    endpoint = build_endpoint_loop(opening, cloud, clock, look_again)
    return Parts(
        settings=settings,
        deps=deps,
        database=database,
        cloud=cloud,
        volume_daemon=volume_daemon,
        targets=targets,
        worker=worker,
        presence=presence,
        app=build_site(settings, deps, database, metrics),
        until_stop=(
            opening,
            endpoint,
            build_epoch_loop((opening, endpoint), deps, database, keeper),
            build_claim_loop(settings, deps, database, worker, keeper),
            build_peer_loop(opening, deps, database, presence, keeper, opened=opened),
            build_count_loop(deps, database, metrics),
            build_pause_loop(opening, deps, database, metrics),
            build_watch_loop(settings, deps, database, metrics),
            build_marker_loop(settings, deps, database, keeper),
        ),
        # Runs that end at their safe point ask whether a silent target is away, also while the daemon drains.
        until_closed=(build_lease_loop(settings, database, worker, clock), circuits),
    )


def build_deps(settings: Settings, stores: Stores, targets: Targets, *, clock: Clock, ids: Ids, bus: EventBus) -> Deps:
    """What the use cases need, over whatever database, CloudStack and Volume Daemon."""
    return Deps(
        inventory=SweptInventory(stores.inventory),
        journal=stores.journal,
        jobs=stores.jobs,
        controls=stores.controls,
        cloud=targets.cloud,
        volumes=targets.volumes,
        clock=clock,
        ids=ids,
        bus=bus,
        limits=GuardLimits(
            alive_s=settings.guards.alive_s,
            oma_identity=settings.oma.identity,
            installation=settings.oma.installation,
            markers_required=settings.oma.markers == "required",
        ),
        observe_timeout_s=settings.guards.observe_timeout_s,
        busy_wait_s=settings.workflow.busy_wait_s,
        longest_call_s=min(settings.cloudstack.expires_s, settings.workflow.lease_s),
        late_s=settings.cloudstack.late_s,
        revert_window_s=settings.recovery.revert_window_s,
    )


def build_worker(settings: Settings, deps: Deps, targets: Targets, owner: str) -> Worker:
    times = LeaseTimes(deps.clock.monotonic)
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
            late_s=settings.cloudstack.late_s,
            settle_s=settings.workflow.settle_s,
            operation_timeout_s=settings.volume_daemon.operation_timeout_s,
            observe_timeout_s=settings.guards.observe_timeout_s,
            busy_wait_s=settings.workflow.busy_wait_s,
            stopped_again_s=settings.guards.stopped_again_s,
            stop_wait_s=settings.workflow.stop_wait_s,
            job_memory_s=settings.cloudstack.job_expire_minutes * 60 / 2,
            revert_window_s=settings.recovery.revert_window_s,
            revert_attempts=settings.recovery.revert_attempts,
            job_recoveries=settings.recovery.job_recoveries,
            retries=build_retries(settings),
        ),
        stop=deps.stopping,
        outages=targets.breakers,
        leases=times,
    )

    async def run(claimed: ClaimedJob) -> str:
        with deps.brakes.held(claimed.job, deps.stopping) as brake:
            return await run_job(claimed, replace(tools, stop=brake))

    return Worker(
        WorkerPorts(deps.journal, deps.jobs, deps.clock, deps.ids, deps.bus.publish),
        run,
        owner=owner,
        max_jobs=settings.workflow.max_jobs,
        lease_s=settings.workflow.lease_s,
        wake=deps.wake,
        times=times,
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


def build_claim_loop(
    settings: Settings, deps: Deps, database: Database, worker: Worker, keeper: EpochKeeper | None = None
) -> Loop:
    async def claim() -> str | None:
        if not database.is_open or (keeper is not None and not keeper.is_open):
            return None
        if deps.brakes.outages:
            return "No run is begun or gone on with while another system is away."
        return await worker.claim() if keeper is None or await keeper.lets_begin() else None

    interval_s = min(settings.workflow.lease_s / 3, SHORTEST_CLAIM_S)
    return Loop("worker", claim, deps.clock, interval_s=interval_s, wake=deps.wake)


def build_lease_loop(settings: Settings, database: Database, worker: Worker, clock: Clock) -> Loop:
    async def renew() -> str | None:
        return await worker.renew() if database.is_open else None

    return Loop("leases", renew, clock, interval_s=settings.workflow.lease_s / 3)


def build_pause_loop(opening: Loop, deps: Deps, database: Database, metrics: Metrics) -> Loop:
    """What another daemon or this one paused reaches the runs here; what stands is known before the daemon serves."""

    async def read() -> str | None:
        await opening.first_turn.wait()
        if not database.is_open:
            return None
        sentence = await read_pauses(deps)
        metrics.paused.set(len(deps.brakes.pauses))
        return sentence

    return Loop("pauses", read, deps.clock, interval_s=PAUSES_S)


def build_watch_loop(settings: Settings, deps: Deps, database: Database, metrics: Metrics) -> Loop:
    patience = Patience(failover_s=settings.guards.stuck_s, job_s=settings.workflow.stuck_s)
    watcher = Watcher(deps, database.watch, patience)

    async def watch() -> str | None:
        if not database.is_open:
            return None
        sentence = await watcher.run_once()
        metrics.jobs_stuck.set(watcher.jobs_stuck)
        return sentence

    return Loop("watcher", watch, deps.clock, interval_s=WATCH_S, patience_s=WATCH_PATIENCE_S)


def build_count_loop(deps: Deps, database: Database, metrics: Metrics) -> Loop:
    async def count() -> str | None:
        if database.is_open:
            jobs, issues = await asyncio.gather(deps.jobs.count_jobs(), deps.jobs.list_issues())
            metrics.set_counts(jobs, issues, deps.clock.now())
        return None

    return Loop("counts", count, deps.clock, interval_s=COUNT_S)
