"""One world: CloudStack, the database, the OMA's machine, the daemons, and who ends and starts them."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Table, select

from appliance.settings import CloudstackSettings, OmaSettings, RecoverySettings, Settings, WorkflowSettings
from database.tables import device_mappings, nbd_exports, oma_epochs, oma_events, oma_jobs, oma_sequences
from oma.demo.invariants import TABLES, build_journal
from oma.domain.events import Event, EventType
from oma.domain.jobs import Job
from oma.domain.states import JobState
from oma.domain.world import EPOCH_KEY, Mapping
from oma.store.actions import list_actions
from oma.store.jobs import build_job
from oma.store.sequences import EVENTS
from ossea.simulator.model import Fault
from ossea.simulator.model import Settings as CloudSettings
from ossea.simulator.model.entities import Phase
from tests.fakes.scenario import BrokenVm, put_into_rows, put_into_world
from tests.fakes.world import FakeWorld
from tests.simulation.cloudstack import VOLUME_DAEMON, CloudServer
from tests.simulation.crashes import Crashes
from tests.simulation.machine import Machine
from tests.simulation.memory_database import MemoryDatabase, MemoryDoor
from tests.simulation.network import Network
from tests.simulation.oma_daemon import OmaProcess, Outside, SeededIds
from tests.simulation.virtual_time import Life, VirtualClock, context_of
from tests.simulation.volume_daemon import VolumeDaemonProcess
from volume_daemon.server.records import Figures as VolumeDaemonFigures

SETTINGS = Settings(
    oma=OmaSettings(identity="trust"),
    workflow=WorkflowSettings(busy_wait_s=120.0, lease_s=60.0),
    recovery=RecoverySettings(revert_window_s=300.0),
    cloudstack=CloudstackSettings(),
)
DAEMON_DIES, VOLUME_DAEMON_DIES = "crash at any await", "crash of the Volume Daemon"
LAST_LOOK_S = 0.5
"""How long before a run's end its last look may have been."""
RESTART_S = 3.0
"""How long whoever supervises a process waits before he starts it again."""


@dataclass
class Trace:
    """What happened, in order; kept only where somebody wants to read it."""

    now: Callable[[], float]
    keep: bool = False
    lines: list[str] = field(default_factory=list)

    def __call__(self, text: str) -> None:
        if self.keep:
            self.lines.append(f"{self.now():10.3f}  {text}")


class Scene:
    """Begins with everything up. Also what the invariants are judged by: see the attributes below."""

    def __init__(
        self,
        seed: int,
        cloud: CloudSettings | None = None,
        *,
        daemons: int = 1,
        keep_trace: bool = False,
        keeps_epochs: bool = False,
        is_paused_at_times: bool = False,
    ) -> None:
        self.loop = loop = asyncio.get_running_loop()
        self.rng = Random(seed)
        self.clock = VirtualClock(loop)
        self.trace = Trace(loop.time, keep_trace)
        self.struck: Counter[str] = Counter()
        self.meddled: Counter[str] = Counter()
        """What people did to runs that went on."""
        self.recoveries = 0
        """Times that a process was started again."""
        self.world = FakeWorld(self.clock, cloud or CloudSettings())  # type: ignore[arg-type]  # a clock that is as fast
        self.database = MemoryDatabase(self.clock.now)
        self.world.find_last_event = self.database.last_event
        self.machine = Machine(self.world)
        self.server = CloudServer(self.world, VirtualClock(loop))
        self.network = Network(Random(seed + 1), self.strike)
        self.ids = SeededIds(Random(seed + 2))
        self.settings = SETTINGS
        self.vms: dict[str, BrokenVm] = {}
        self.volume_daemon: VolumeDaemonProcess | None = None
        self.daemons: dict[str, OmaProcess] = {}
        self.names = [f"oma-{number}" for number in range(1, daemons + 1)]
        self._doors: list[MemoryDoor] = []
        self._job_faults: list[tuple[str, Fault]] = []
        self._crashes = Crashes(lambda name: self.strike(VOLUME_DAEMON_DIES if name == VOLUME_DAEMON else DAEMON_DIES))
        self.down_s = 0.0
        """How long those that die next stay down, if longer than usual."""
        self.listeners: list[Callable[[OmaProcess, Event], None]] = []
        self.calm = False
        """Nothing is done to this world any more."""
        self.disturbed: set[str] = set()
        """Volumes of which somebody else has taken care since their run was over."""
        self.restored = False
        self.older: list[tuple[float, float]] = []
        """Times of running on an older copy that was given away, until a person had looked."""
        self.forgotten: set[str] = set()
        """Ids of calls that a restored database does not know."""
        self.replicated: dict[str, tuple[str, str]] = {}
        """Volume id → what it has to hold, and the change id that it has to have, since it was replicated again."""
        self.connected: list[Any] = []
        """Clients that were on a device and are gone: `tests.simulation.replicating.Connected`."""
        self.outside = Outside(
            self.database,
            self.server,
            self.network,
            lambda: self.volume_daemon,
            self.ids,
            self.settings,
            {},
            keeps_epochs,
            is_paused_at_times,
        )

    def open(self) -> None:
        self.world.start()
        self.start_volume_daemon()
        for name in self.names:
            self.start_daemon(name)

    def close(self) -> None:
        for door in self._doors:
            door.close()

    def strike(self, what: str) -> None:
        """A fault has happened."""
        self.struck[what] += 1
        self.trace(f"FAULT     {what}")

    def add(self, vm: BrokenVm) -> BrokenVm:
        put_into_world(vm, self.world, SimpleNamespace(mappings={}))  # type: ignore[arg-type]  # only its mappings are filled
        self.database.run(lambda connection: put_into_rows(connection, vm, self.clock.now()))
        self.vms[vm.context_id] = vm
        self.machine.settle()
        return vm

    # Processes

    def start_daemon(self, name: str) -> OmaProcess:
        daemon = OmaProcess(name, self.outside, VirtualClock(self.loop))
        self._doors.append(daemon.door)
        self.daemons[name] = daemon
        daemon.bus.on_event(self.world.hear)
        daemon.bus.on_event(lambda event: self.trace(f"{name:9} {event.type.value}: {event.sentence}"))
        daemon.bus.on_event(lambda event: self._hear(daemon, event))
        daemon.life.deaths.append(lambda: self._restart(name, daemon.life, self.start_daemon))
        daemon.start()
        self._crashes.begin(daemon.life)
        return daemon

    def _hear(self, daemon: OmaProcess, event: Event) -> None:
        for tell in tuple(self.listeners):
            tell(daemon, event)

    def _restart(self, name: str, life: Life, start: Callable[[str], object]) -> None:
        self.trace(f"{name:9} died")
        self._crashes.end(life)

        def again() -> None:
            self.recoveries += 1
            self.trace(f"{name:9} is started again")
            start(name)

        self.later(max(RESTART_S, self.down_s), again)

    def start_volume_daemon(self, name: str = VOLUME_DAEMON) -> None:
        figures = VolumeDaemonFigures(
            operation_timeout_s=self.settings.volume_daemon.operation_timeout_s,
            device_wait_s=self.settings.volume_daemon.operation_timeout_s,
            job_memory_s=self.settings.cloudstack.job_expire_minutes * 30.0,
        )
        daemon = VolumeDaemonProcess(
            database=self.database,
            server=self.server,
            network=self.network,
            machine=self.machine,
            clock=VirtualClock(self.loop),
            figures=figures,
            new_id=self.ids.new_id,
        )
        self._doors.append(daemon.door)
        self.volume_daemon = daemon
        daemon.life.deaths.append(lambda: self._restart(name, daemon.life, self.start_volume_daemon))
        daemon.start()
        self._crashes.begin(daemon.life)

    # What is done to it

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """By somebody outside of every process, so many seconds from now."""
        self.loop.call_later(seconds, what, context=context_of(None))

    def strike_later(self, seconds: float, what: Callable[[], None]) -> None:
        """The same, if the world has not come to rest by then."""
        self.later(seconds, lambda: None if self.calm else what())

    def do_as_somebody_else(self, command: str, **params: str) -> None:
        """A change in CloudStack that is not of our daemons."""
        self.world.model.submit(command, params, self.clock.unix(), faults=())
        self.world.seed()

    def forget_volume(self, vm: BrokenVm, volume_id: str) -> None:
        """It vanishes. Whoever had finished by then, or had looked for the last time, can't know of it."""

        def note() -> None:
            job = self.job_of(vm)
            if job is not None and job.state is JobState.COMPLETED:
                self.disturbed.add(volume_id)

        self.world.forget_volume(volume_id)
        note()
        self.later(LAST_LOOK_S, note)

    def any_vm(self) -> BrokenVm:
        return self.rng.choice(list(self.vms.values()))

    def doors(self) -> list[MemoryDoor]:
        return [one.door for one in self.processes()]

    def processes(self) -> list[OmaProcess | VolumeDaemonProcess]:
        """Those that were started last, dead or alive."""
        return [*self.daemons.values(), *([self.volume_daemon] if self.volume_daemon else [])]

    def add_job_fault(self, name: str, fault: Fault) -> None:
        self._job_faults.append((name, fault))
        self.world.model.faults.add(fault)

    def note_job_faults(self) -> None:
        """Tells of those that have struck: the model uses them up."""
        waiting = {id(fault) for fault in self.world.model.faults.waiting()}
        for name, fault in [*self._job_faults]:
            if id(fault) not in waiting:
                self._job_faults.remove((name, fault))
                self.strike(f"{name}")

    def crash_at(self, name: str, step: int) -> None:
        """The process of this name dies before its next `step`-th step: see `Crashes.add`."""
        now = self.volume_daemon if name == VOLUME_DAEMON else self.daemons[name]
        if now is not None:
            self._crashes.add(now.life, step)

    def thaw(self, daemon: OmaProcess) -> None:
        if not daemon.life.dead:
            self.trace(f"{daemon.life.name:9} goes on")
            daemon.life.thaw()

    def set_database_away(self, away: bool) -> None:
        self.database.is_away = away

    def restart_server(self, mode: str, down_s: float) -> None:
        self.strike("server restart")
        self.server.is_up = False
        self.world.advance()
        self.world.model.restart(self.clock.unix(), mode)
        self.world.advance()

        def up() -> None:
            self.server.is_up = True

        self.later(down_s, up)

    def jump_clock(self, whose: str, seconds: float) -> None:
        self.strike("clock jump")
        match whose:
            case "database":
                self.database.clock_offset_s += seconds
            case "server":
                self.server.clock.step(seconds)
            case "daemon":
                self.daemons[self.rng.choice(self.names)].clock.step(seconds)
            case _:
                if self.volume_daemon is not None:
                    self.volume_daemon.clock.step(seconds)

    def restore_database(self, copy: bytes) -> None:
        """Everybody is stopped, the old copy put in place, everybody started."""
        self.strike("restored database")
        for daemon in list(self.daemons.values()):
            daemon.life.kill()
        if self.volume_daemon is not None:
            self.volume_daemon.life.kill()
        self.database.restore(copy)
        self.restored = True
        journal = build_journal({table: self.read(table) for table in TABLES})
        self.forgotten |= self.world.sent.keys() - journal.ids.keys()
        if self._is_given_away():
            self.older.append((self.clock.unix(), math.inf))
        # What was told after the copy was made is told no more, and its numbers are given anew.
        last = max((int(row["seq"]) for row in journal.events), default=0)
        self.world.orders[:] = [replace(one, after_seq=min(one.after_seq or 0, last)) for one in self.world.orders]
        self.world.told.clear()

    def _is_given_away(self) -> bool:
        """Whether the tag on the OMA, or what each daemon's state directory remembers, is ahead of the database."""
        epoch = max((int(row["epoch"]) for row in self.read(oma_epochs)), default=0)
        written = max((int(row["value"]) for row in self.read(oma_sequences, name=EVENTS)), default=0)
        tags = (tag.value for tag in self.world.model.world.tags.rows.values() if tag.key == EPOCH_KEY)
        if any(int(text.rpartition(":")[2]) > epoch for text in tags):
            return True
        noted = [note.noted for note in self.outside.notes.values() if note.noted is not None]
        ahead = [int(one.text.rpartition(":")[2]) > epoch or one.written > written for one in noted]
        return len(ahead) == len(self.names) and all(ahead)

    def note_accepted(self, asked_at: float) -> None:
        """A person has said that he has looked, and the database is not held for older any more."""
        if self.older and not any(row["older_since"] for row in self.read(oma_epochs)):
            since, until = self.older[-1]
            self.older[-1] = since, min(until, asked_at)

    def calm_down(self) -> None:
        """Whatever was armed and has not struck yet never does."""
        self.note_job_faults()
        self.calm = True
        self.world.model.faults.clear()
        self.network.planned.clear()
        for daemon in self.processes():
            self._crashes.clear(daemon.life)

    def list_going(self) -> list[str]:
        """Requests on their way, jobs of CloudStack and operations of the Volume Daemon that go on."""
        self.world.advance()
        jobs = self.world.model.world.jobs.rows.values()
        going = [f"CloudStack works at {job.command}" for job in jobs if job.phase != Phase.ENDED]
        if self.network.under_way:
            going.append(f"{self.network.under_way} requests are under way")
        if self.volume_daemon is not None and self.volume_daemon.operations.count_live():
            going.append(f"{self.volume_daemon.operations.count_live()} operations of the Volume Daemon go on")
        return going

    # What the invariants and the operator look at

    def job_of(self, vm: BrokenVm) -> Job | None:
        """The newest run of this VM."""
        queued = oma_events.c.context_id == vm.context_id, oma_events.c.type == EventType.JOB_QUEUED.value
        # The last that was queued: a clock may have been set back between two of them.
        newest = select(oma_events.c.job_id).where(*queued).order_by(oma_events.c.seq.desc()).limit(1)
        query = select(oma_jobs).where(oma_jobs.c.id == newest.scalar_subquery())
        row = self.database.look(lambda connection: connection.execute(query).mappings().first())
        return build_job(row) if row is not None else None

    def read(self, table: Table, **where: Any) -> list[dict[str, Any]]:
        query = select(table)
        for column, value in where.items():
            query = query.where(table.c[column] == value)
        return self.database.look(lambda connection: [dict(row) for row in connection.execute(query).mappings()])

    @property
    def known_besides(self) -> dict[str, Any]:
        """What the checker has to know of this world besides, by the names of `History`."""
        forgotten, disturbed = frozenset(self.forgotten), frozenset(self.disturbed)
        return {"forgotten": forgotten, "disturbed": disturbed, "older": tuple(self.older)}

    async def rows(self, table: Table, **where: Any) -> list[dict[str, Any]]:
        return self.read(table, **where)

    @property
    def deps(self) -> Any:
        """As the checker takes them: `jobs` over the database itself, whoever lives."""
        return SimpleNamespace(jobs=_Jobs(self), revert_window_s=self.settings.recovery.revert_window_s)

    @property
    def volumes(self) -> Any:
        """What the Volume Daemon's tables say, as the fake shows it."""
        mappings = {
            row["volume_uuid"]: Mapping(
                row["volume_uuid"], row["vm_id"], row["device_path"], row["operation_mode"], row["linux_state"]
            )
            for row in self.read(device_mappings)
        }
        exported = dict.fromkeys((volume_id for vm in self.vms.values() for volume_id in vm.volume_ids), False)
        exported |= {row["device_mapping_uuid"]: True for row in self.read(nbd_exports)}
        return SimpleNamespace(mappings=mappings, exported=exported)


class _Jobs:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def list_actions(self, job_id: str) -> Any:
        return self._scene.database.look(lambda connection: list_actions(connection, job_id))
