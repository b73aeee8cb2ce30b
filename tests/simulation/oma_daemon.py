"""The real OMA daemon on virtual time: worker, leases, runs and services over the real adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from uuid import UUID

from appliance.settings import Settings
from oma.adapters.cloudstack import CloudStackCloud
from oma.adapters.volume_daemon import VolumeDaemonVolumes
from oma.domain.epochs import Witness
from oma.runtime.bootstrap import PAUSES_S, build_claim_loop, build_deps, build_lease_loop, build_worker
from oma.runtime.keeping import MARKERS_S
from oma.runtime.loops import Loop
from oma.runtime.presence import build_owner
from oma.runtime.targets import build_targets
from oma.service.epochs import EpochKeeper, EpochPorts
from oma.service.pausing import read_pauses
from oma.store import SqlInventory, SqlJobReader, SqlJournalStore, SqlSupervision
from oma.store.epoch_store import SqlEpochs
from oma.workflow.bus import EventBus
from oma.workflow.unmarking import Unmarker, sweep_markers
from tests.simulation.cloudstack import CloudServer, SimulatedCloudStack
from tests.simulation.memory_database import MemoryDatabase, MemoryDoor
from tests.simulation.network import Network
from tests.simulation.virtual_time import Life, VirtualClock, context_of
from tests.simulation.volume_daemon import SimulatedClient, VolumeDaemonProcess

CIRCUITS_S = 20.0
EPOCHS_S = 2.0
CLAIM_S = 15.0
"""Slower than in the field, where nobody pays for looking."""


class SeededIds:
    """Fresh UUIDs, the same ones for the same seed."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def new_id(self) -> str:
        return str(UUID(int=self._rng.getrandbits(128), version=4))


class RememberedEpoch:
    """A state directory, as `oma.runtime.epoch_note` keeps one."""

    def __init__(self) -> None:
        self.noted: Witness | None = None

    async def read(self) -> Witness | None:
        return self.noted

    async def write(self, text: str, written: int) -> None:
        self.noted = Witness("the state directory", text, written)


@dataclass(frozen=True, slots=True)
class Outside:
    """What every daemon of a world deals with."""

    database: MemoryDatabase
    server: CloudServer
    network: Network
    find_volume_daemon: Callable[[], VolumeDaemonProcess | None]
    ids: SeededIds
    settings: Settings
    notes: dict[str, RememberedEpoch]
    """By daemon: what its state directory remembers, which outlives it and the database."""
    keeps_epochs: bool = False
    """Whether a restored database is told from the one that was; only a world that restores one pays for it."""
    is_paused_at_times: bool = False
    """Whether anybody pauses runs; likewise."""


@dataclass(frozen=True, slots=True)
class _Stores:
    inventory: SqlInventory
    journal: SqlJournalStore
    jobs: SqlJobReader
    controls: SqlSupervision


class _Opened:
    """What the loops ask of the daemon's database: whether it is worth a look. Nothing is claimed or renewed where no
    job is queued or running, so that a loop that looks at nothing costs nothing.
    """

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database

    @property
    def is_open(self) -> bool:
        return self._database.has_active_jobs()


class OmaProcess:
    """One life of one daemon, from its start to its death or its stop."""

    def __init__(self, name: str, outside: Outside, clock: VirtualClock) -> None:
        settings = outside.settings
        self.life = life = Life(name)
        self.clock = clock
        self._database = outside.database
        self._expires_s = settings.cloudstack.expires_s
        self.bus = bus = EventBus()
        self.door = door = MemoryDoor(outside.database, life)
        self.client = SimulatedCloudStack(
            outside.server,
            outside.network,
            life,
            clock,
            expires_s=settings.cloudstack.expires_s,
            new_id=outside.ids.new_id,
        )
        client = SimulatedClient(outside.find_volume_daemon, outside.network, life, outside.server.world)
        volumes = VolumeDaemonVolumes(client)
        self.targets = build_targets(settings, CloudStackCloud(self.client), volumes, clock)
        stores = _Stores(
            SqlInventory(door),
            SqlJournalStore(door, bus.publish),
            SqlJobReader(door),
            SqlSupervision(door, bus.publish),
        )
        deps = build_deps(settings, stores, self.targets, clock=clock, ids=outside.ids, bus=bus)
        self.epochs = SqlEpochs(door, bus.publish)
        if outside.keeps_epochs:
            deps = replace(deps, epochs=self.epochs)
        self.deps = deps
        self.worker = build_worker(settings, deps, self.targets, build_owner(deps.ids))
        self.targets.breakers.on_change(self._tell_outages)
        opened: Any = _Opened(outside.database)
        keeper: EpochKeeper | None = None
        if outside.keeps_epochs:
            note = outside.notes.setdefault(name, RememberedEpoch())
            ports = EpochPorts(self.epochs, deps.cloud, note, clock, outside.ids)
            keeper = EpochKeeper(
                ports, installation=settings.oma.installation, owner=self.worker.owner, opened=deps.wake.set
            )
        claims = build_claim_loop(settings, deps, opened, self.worker, keeper)
        claims.interval_s = CLAIM_S
        self._loops = [
            claims,
            build_lease_loop(settings, opened, self.worker, clock),
            Loop("circuits", self.targets.breakers.look, clock, interval_s=CIRCUITS_S, wake=self.targets.suspect),
        ]
        if keeper is not None:
            self._loops.append(Loop("epochs", keeper.run_once, clock, interval_s=EPOCHS_S))
        if outside.is_paused_at_times:
            self._loops.append(Loop("pauses", self._read_pauses, clock, interval_s=PAUSES_S))
        self._unmarker = Unmarker(deps.cloud, deps.journal, clock, settings.oma.installation)
        self._loops.append(Loop("markers", self._sweep_markers, clock, interval_s=MARKERS_S))
        self.context = context_of(life)

    async def _read_pauses(self) -> str | None:
        return await read_pauses(self.deps)

    async def _sweep_markers(self) -> str | None:
        if not self._database.has_markers_to_sweep():
            return None
        return await sweep_markers(self._unmarker, older_s=MARKERS_S, expires_s=self._expires_s)

    def _tell_outages(self) -> None:
        self.deps.brakes.set_outages(self.targets.breakers.outages)
        self.deps.wake.set()

    @property
    def serves(self) -> bool:
        """Whether a person gets an answer of it."""
        return not self.life.dead and not self.life.is_frozen and not self.deps.stopping.is_set()

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        never = asyncio.Event()
        self._tasks = [loop.create_task(one.run(never), context=self.context) for one in self._loops]
