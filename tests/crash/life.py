"""One life of the daemon over a world and a database that outlive it: what it holds in memory dies with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from database.door import Door
from oma import ports
from oma.domain.errors import OmaError
from oma.domain.jobs import ClaimedJob, Job
from oma.runtime.epoch_note import FileEpochNote
from oma.runtime.worker import Worker, WorkerPorts
from oma.service.epochs import EpochKeeper, EpochPorts, build_restored_issue
from oma.service.watching import Patience, Watcher
from oma.store import SqlSupervision
from oma.workflow.run import Figures
from oma.workflow.runner import run_job
from oma.workflow.unmarking import Unmarker, sweep_markers
from tests.crash.dying import Died
from tests.crash.ports import WatchedDoor, watch, watched
from tests.fakes.cloud import FakeCloud
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import Stage, build_stage
from tests.fakes.volumes import FakeVolumes

SPEED = 400.0
FIGURES = Figures(
    lease_s=12_000.0,
    expires_s=24_000.0,
    busy_wait_s=12_000.0,
    settle_s=20.0,
    observe_timeout_s=12_000.0,
    revert_window_s=30.0,
    stopped_again_s=10.0,
    stop_wait_s=12_000.0,
)
"""At `SPEED`: bounds that no busy machine reaches, and windows of a tenth of a second."""
LEASE_S = 60.0
"""Of the database's own clock."""


async def _nothing() -> None:
    return None


class LifeIds:
    """Ids that no other life gives out."""

    def __init__(self, life: int) -> None:
        self._number = life << 32

    def new_id(self) -> str:
        self._number += 1
        return str(UUID(int=0x00000000_0000_4000_8000_000000000000 + self._number))


@dataclass
class Life:
    """`first` is the one that is to die; only in it does the story's person meddle."""

    stage: Stage
    worker: Worker
    watcher: Watcher
    keeper: EpochKeeper
    peers: ports.Peers
    first: bool
    mend: Callable[[], Awaitable[None]] = _nothing
    """What the story has somebody do in the world."""
    tolerated: str | None = None
    tasks: set[asyncio.Task[object]] = field(default_factory=set)
    dead: asyncio.Event = field(default_factory=asyncio.Event)
    """Set as soon as a run of this life has died; it then stands still until the life ends."""

    @property
    def running(self) -> list[asyncio.Task[None]]:
        return [held.task for held in self.worker._held.values()]

    def tolerates(self, violation: str) -> bool:
        return self.tolerated is not None and self.tolerated in violation

    async def work(self) -> None:
        """Runs what is to be claimed until nothing is; raises `Died` where this life has ended."""
        while self.keeper.is_open:
            await self.free()
            await self.worker.claim()
            running = self.running
            if not running:
                break
            dead = asyncio.ensure_future(self.dead.wait())
            try:
                await asyncio.wait([*running, dead], return_when=asyncio.FIRST_COMPLETED)
            finally:
                dead.cancel()
            if self.dead.is_set():
                raise Died("in a run")
        await self.join()
        await self.sweep()

    async def start(self) -> None:
        """The epoch comes first; a database that is older than the world is accepted by a person who has looked."""
        await self.keeper.run_once()
        if not self.keeper.is_open:
            deps = self.stage.deps
            assert deps.epochs is not None
            build = partial(build_restored_issue, ids=deps.ids, clock=deps.clock)
            await deps.epochs.accept("looked at everything", "eva", build, deps.clock.now())
            await self.keeper.run_once()

    async def free(self) -> None:
        """Whoever else holds a lease is known to be dead; what our own runs left behind goes back to the queue."""
        for owner in await self.peers.list_owners():
            if owner != self.worker.owner:
                await self.peers.end_leases(owner)
        if await self.peers.list_owners():
            await self.worker.renew()

    async def sweep(self) -> None:
        """What the daemon's loops do in their own time."""
        await self.keeper.run_once()
        deps = self.stage.deps
        unmarker = Unmarker(deps.cloud, deps.journal, deps.clock, deps.limits.installation)
        await sweep_markers(unmarker, older_s=0.0, expires_s=self.stage.tools.figures.expires_s)

    async def join(self) -> None:
        """The end of what the story's person began beside the runs."""
        while self.tasks:
            done, _ = await asyncio.wait(self.tasks)
            self.tasks -= done
            _raise_death(done)

    def beside(self, what: asyncio.Task[object]) -> None:
        self.tasks.add(what)

    async def end(self) -> None:
        """Nothing of this life goes on."""
        left = [*self.running, *self.tasks]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


def _raise_death(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Died) or (error is not None and not isinstance(error, OmaError)):
            raise error


@asynccontextmanager
async def open_life(
    url: str,
    cloud: FakeCloud,
    volumes: FakeVolumes,
    state_dir: Path,
    *,
    number: int = 1,
    vms: dict[str, BrokenVm] | None = None,
    figures: Figures = FIGURES,
) -> AsyncIterator[Life]:
    """Opens the database anew. Whatever still runs at the end of the block is cut off."""
    door = await Door.open(url)
    try:
        stage = build_stage(WatchedDoor(door), cloud, volumes, figures=figures, ids=LifeIds(number))
        stage.vms = dict(vms or {})
        watch(stage)
        life = build_life(stage, number, state_dir)
        try:
            yield life
        finally:
            await life.end()
    finally:
        await door.close()


def build_life(stage: Stage, number: int, state_dir: Path) -> Life:
    deps, tools = stage.deps, stage.tools
    dead = asyncio.Event()

    async def run(claimed: ClaimedJob) -> str:
        with deps.brakes.held(claimed.job, deps.stopping) as brake:
            try:
                return await run_job(claimed, replace(tools, stop=brake))
            except Died:
                dead.set()
                never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
                return await never

    worker = Worker(
        WorkerPorts(deps.journal, deps.jobs, deps.clock, deps.ids, deps.bus.publish),
        run,
        owner=f"life-{number}",
        max_jobs=8,
        lease_s=LEASE_S,
        wake=deps.wake,
    )
    supervision = SqlSupervision(stage.door, deps.bus.publish)
    watcher = Watcher(deps, watched(supervision, ports.Watch), Patience())
    keeper = _build_keeper(stage, state_dir, worker.owner)
    return Life(stage, worker, watcher, keeper, watched(supervision, ports.Peers), first=number == 1, dead=dead)


def _build_keeper(stage: Stage, state_dir: Path, owner: str) -> EpochKeeper:
    deps = stage.deps
    assert deps.epochs is not None
    note = watched(FileEpochNote(state_dir), ports.EpochNote)
    epoch_ports = EpochPorts(deps.epochs, deps.cloud, note, deps.clock, deps.ids)
    return EpochKeeper(epoch_ports, installation=deps.limits.installation, owner=owner, opened=deps.wake.set)


async def find_newest_job(stage: Stage, vm: BrokenVm) -> Job | None:
    page = await stage.deps.jobs.list_jobs(ports.JobFilter(context_id=vm.context_id), 1, None)
    return page.items[0] if page.items else None
