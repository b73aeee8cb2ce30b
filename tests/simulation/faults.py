"""What a seed does to its world: every class of faults that the daemons have to live with.

A fault is drawn with everything that it needs, then armed; it tells the scene when it strikes. Some wait for a call or
a step, others for a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Final

from oma.domain.actions import ActionKind
from oma.domain.events import Event, EventType
from ossea.simulator.model import Fault, FaultKind
from tests.simulation.cloudstack import VOLUME_DAEMON
from tests.simulation.memory_database import CommitFault
from tests.simulation.network import Mishap, Planned
from tests.simulation.oma_daemon import OmaProcess
from tests.simulation.replicating import NAME as REPLICATION
from tests.simulation.replicating import Replication
from tests.simulation.scene import RESTART_S, Scene
from volume_daemon.holders.report import Holder, HolderKind, Role

CHANGES: Final = (
    "createTags",
    "stopVirtualMachine",
    "detachVolume",
    "revertSnapshot",
    "deleteSnapshot",
    "attachVolume",
    "destroyVirtualMachine",
    "POST detach",
    "POST attach",
)
JOBS: Final = ("detachVolume", "revertSnapshot", "deleteSnapshot", "attachVolume", "stopVirtualMachine")
READS: Final = ("listVolumes", "queryAsyncJobResult", "listSnapshots", "GET operations", "GET volumes", "GET devices")
RUN_S: Final = 36.0
"""About how long an undisturbed run takes; what strikes at a moment strikes within it."""
RUN_STEPS: Final = 1500
"""Steps of a daemon, and of the Volume Daemon half as many, in a run of one volume."""

Arm = Callable[[Scene, Random], None]


@dataclass(frozen=True)
class FaultClass:
    """What strikes under `name`; `weight` says how often it is drawn. Every one is told to `Scene.strike`."""

    name: str
    arm: Arm
    weight: float = 1.0


def _moment(rng: Random) -> float:
    return rng.uniform(0.5, RUN_S)


def _mishap(mishap: Mishap, names: tuple[str, ...] = CHANGES) -> Arm:
    def arm(scene: Scene, rng: Random) -> None:
        delay_s = {Mishap.DELAY: rng.choice((8.0, 20.0, 55.0)), Mishap.DUPLICATE: rng.choice((0.01, 2.0, 30.0))}
        late_s = rng.uniform(20.0, 70.0) if mishap is Mishap.LATE_AFTER_DEATH else 0.0
        name = rng.choice(names)
        if mishap is Mishap.DUPLICATE and not scene.world.model.settings.custom_job_id:
            # A server that gives jobs ids of its own carries out whatever it gets, and nobody could help it.
            name = "POST attach"
        scene.network.planned.append(Planned(mishap, name, rng.choice((1, 1, 1, 2, 3)), delay_s.get(mishap, late_s)))

    return arm


def _job(name: str, kind: FaultKind, commands: tuple[str, ...], **more: object) -> Arm:
    def arm(scene: Scene, rng: Random) -> None:
        fields = {key: value(rng) if callable(value) else value for key, value in more.items()}
        scene.add_job_fault(name, Fault(kind=kind, command=rng.choice(commands), **fields))  # type: ignore[arg-type]  # drawn

    return arm


def _failed_but_applied(scene: Scene, rng: Random) -> None:
    """A revert may go on for as long as its window; what else a hypervisor does is soon to be seen."""
    command = rng.choice(JOBS)
    delay_s = rng.choice((0.0, 60.0, 250.0)) if command == "revertSnapshot" else rng.choice((0.0, 5.0))
    fault = Fault(kind=FaultKind.JOB_FAIL_APPLIED, command=command, delay_s=delay_s)
    scene.add_job_fault("job failed-but-applied", fault)


def _crash(scene: Scene, rng: Random) -> None:
    scene.crash_at(rng.choice(scene.names), rng.randint(5, RUN_STEPS))


def _crash_volume_daemon(scene: Scene, rng: Random) -> None:
    scene.crash_at(VOLUME_DAEMON, rng.randint(5, RUN_STEPS // 2))


def _freeze(scene: Scene, rng: Random) -> None:
    name, for_s = rng.choice(scene.names), rng.uniform(65.0, 200.0)
    scene.strike_later(_moment(rng), lambda: _freeze_now(scene, name, for_s))


def _freeze_now(scene: Scene, name: str, for_s: float) -> None:
    daemon = scene.daemons[name]
    if daemon.life.dead or daemon.life.is_frozen:
        return
    scene.strike("process stopped past its lease")
    daemon.life.freeze()
    scene.later(for_s, lambda: scene.thaw(daemon))


def _database_away(scene: Scene, rng: Random) -> None:
    for_s = rng.choice((0.5, 5.0, 20.0, 60.0))
    scene.strike_later(_moment(rng), lambda: _take_database_away(scene, for_s))


def _take_database_away(scene: Scene, for_s: float) -> None:
    scene.strike("database error")
    scene.set_database_away(True)
    scene.later(for_s, lambda: scene.set_database_away(False))


def _database_error(scene: Scene, rng: Random) -> None:
    """It is away for a while, or the answer to a COMMIT gets lost."""
    rng.choice((_database_away, _lost_commit, _lost_commit))(scene, rng)


def _refused_for_other_reasons(scene: Scene, rng: Random) -> None:
    if rng.random() < 0.4:
        _vm_snapshot(scene, rng)
        return
    command = rng.choice(("detachVolume", "attachVolume"))
    scene.add_job_fault("431 for other reasons", Fault(kind=FaultKind.JOB_FAIL, command=command, errorcode=431))


def _lost_commit(scene: Scene, rng: Random) -> None:
    fault = rng.choice(tuple(CommitFault))

    def strike() -> None:
        door = rng.choice(scene.doors())
        door.lose_commit(fault, lambda: scene.strike("database error"))

    scene.strike_later(_moment(rng), strike)


def _server_restart(scene: Scene, rng: Random) -> None:
    mode, down_s = rng.choice(("resume", "fail", "fail", "fail_and_lose_volumes")), rng.uniform(1.0, 40.0)
    scene.strike_later(_moment(rng), lambda: scene.restart_server(mode, down_s))


def _late_device(scene: Scene, rng: Random) -> None:
    vm = scene.any_vm()
    volume_id = rng.choice(vm.volume_ids)
    scene.machine.late[volume_id] = rng.choice((2.0, 20.0, 58.0, 90.0))
    scene.machine.on_late = lambda: scene.strike("late device")


def _vanished_volume(scene: Scene, rng: Random) -> None:
    vm = scene.any_vm()
    volume_id = rng.choice(vm.volume_ids)

    def strike() -> None:
        if scene.world.model.world.live_volume(volume_id) is not None:
            scene.strike("volume that vanishes")
            scene.forget_volume(vm, volume_id)

    scene.strike_later(_moment(rng), strike)


def _clock_jump(scene: Scene, rng: Random) -> None:
    seconds = rng.choice((-3600.0, -90.0, 90.0, 3600.0))
    whose = rng.choice(("daemon", "daemon", "database", "volume daemon", "server"))
    if whose == "server":
        # A server that gives jobs ids of its own knows a late call by its time alone.
        steps = (-120.0, -30.0, 30.0, 120.0) if scene.world.model.settings.custom_job_id else (-30.0, 30.0, 120.0)
        seconds = rng.choice(steps)
    scene.strike_later(_moment(rng), lambda: scene.jump_clock(whose, seconds))


def _replaced_under_holder(scene: Scene, rng: Random) -> None:
    """The volume is detached only in the database, and a revert replaces its file under whoever keeps it open."""
    scene.world.model.settings = scene.world.model.settings.patched({"revert_mode": "replace"})
    vm = scene.any_vm()
    volume_id = rng.choice(vm.volume_ids)

    def strike() -> None:
        if scene.world.holder_of(volume_id) is not None:
            scene.strike("a revert that replaces the file under a holder")
            scene.world.change_volume(volume_id, keeps_device=True)

    scene.later(rng.uniform(0.0, 6.0), strike)


def _root_dies(scene: Scene, rng: Random) -> None:
    """Somebody else destroys the test VM; with it goes what CloudStack takes for its root."""
    vm = scene.any_vm()

    def strike() -> None:
        row = scene.world.model.world.vms.rows.get(vm.test_vm_id)
        if row is None or row.state in {"Destroyed", "Expunging"}:
            return
        scene.strike("ROOT dying with its VM")
        scene.do_as_somebody_else("destroyVirtualMachine", id=vm.test_vm_id)

    scene.strike_later(_moment(rng), strike)


def _vm_snapshot(scene: Scene, rng: Random) -> None:
    vm = scene.any_vm()
    vm_id = rng.choice((vm.test_vm_id, vm.test_vm_id, scene.world.oma_vm_id))

    def strike() -> None:
        if scene.world.model.world.vms.find(vm_id) is not None:
            scene.strike("431 for other reasons")
            scene.world.add_vm_snapshot(vm_id)

    scene.strike_later(_moment(rng), strike)


def _forgotten_jobs(scene: Scene, rng: Random) -> None:
    """The daemons are down so long that CloudStack has forgotten the jobs of before."""
    hours = rng.uniform(13.0, 30.0)

    def strike() -> None:
        scene.strike("expired job rows")
        scene.down_s = hours * 3600.0
        for daemon in list(scene.daemons.values()):
            daemon.life.kill()
        if scene.volume_daemon is not None and rng.random() < 0.5:
            scene.volume_daemon.life.kill()
        scene.down_s = 0.0

    scene.strike_later(_moment(rng), strike)


def _restored_database(scene: Scene, rng: Random) -> None:
    taken_at = rng.uniform(0.0, RUN_S * 0.6)
    copies: list[bytes] = []
    scene.later(taken_at, lambda: copies.append(scene.database.copy()))
    scene.strike_later(taken_at + rng.uniform(2.0, RUN_S), lambda: scene.restore_database(copies[0]))


def _replication(scene: Scene, rng: Random) -> None:
    vm = scene.any_vm()
    for_s, writes = rng.choice((20.0, 20.0, 100.0, 600.0)), rng.random() < 0.75
    scene.strike_later(_moment(rng), Replication(scene, vm, for_s, writes=writes).start)


def _held(scene: Scene, rng: Random) -> None:
    """A process has the device open, or nobody can tell who has, until it ends or a person ends it."""
    vm = scene.any_vm()
    volume_id, for_s, told = rng.choice(vm.volume_ids), rng.choice((10.0, 100.0, 3000.0)), rng.random() < 0.6
    holder = Holder(HolderKind.PROCESS, "qemu-nbd", command="qemu-nbd -c /dev/nbd0", role=Role.UNKNOWN)

    def strike(_volume_id: str) -> None:
        scene.machine.on_held = None
        scene.strike("device held on the OMA")

    def begin() -> None:
        scene.machine.on_held = strike
        if told:
            scene.machine.held[volume_id] = holder
        else:
            scene.machine.unread.add(volume_id)
        scene.later(for_s, lambda: scene.machine.let_go([volume_id]))

    scene.strike_later(rng.choice((0.0, _moment(rng))), begin)


RESTORED: Final = FaultClass("restored database", _restored_database, 0.0)
"""Not drawn like the others: its worlds keep epochs."""

FAULTS: Final = (
    FaultClass("crash at any await", _crash, 3.0),
    FaultClass("crash of the Volume Daemon", _crash_volume_daemon, 2.0),
    FaultClass("lost request", _mishap(Mishap.LOST_REQUEST), 2.0),
    FaultClass("lost answer", _mishap(Mishap.LOST_ANSWER, (*CHANGES, *CHANGES, *READS)), 3.0),
    FaultClass("duplicate", _mishap(Mishap.DUPLICATE)),
    FaultClass("delay", _mishap(Mishap.DELAY), 2.0),
    FaultClass("reordering", _mishap(Mishap.REORDERING)),
    FaultClass("delivered after the take-over", _mishap(Mishap.LATE_AFTER_DEATH), 2.0),
    FaultClass("database error", _database_error, 3.0),
    FaultClass("job failed-but-applied", _failed_but_applied, 2.0),
    FaultClass("job failed", _job("job failed", FaultKind.JOB_FAIL, JOBS, errorcode=530)),
    FaultClass(
        "job stuck",
        _job("job stuck", FaultKind.JOB_STUCK, JOBS, delay_s=lambda rng: rng.choice((30.0, 100.0, 900.0))),
        2.0,
    ),
    FaultClass("server restart", _server_restart, 2.0),
    FaultClass(
        "straggler",
        _job("straggler", FaultKind.JOB_LATE, ("detachVolume",), delay_s=lambda rng: rng.choice((10.0, 70.0, 300.0))),
        2.0,
    ),
    FaultClass("late device", _late_device),
    FaultClass("volume that vanishes", _vanished_volume, 0.5),
    FaultClass("clock jump", _clock_jump),
    FaultClass(
        "detached only in the database with a writer still open",
        _job(
            "detached only in the database with a writer still open",
            FaultKind.JOB_NO_EFFECT,
            ("detachVolume",),
        ),
    ),
    FaultClass("a revert that replaces the file under a holder", _replaced_under_holder, 0.7),
    FaultClass("ROOT dying with its VM", _root_dies, 0.5),
    FaultClass("431 for other reasons", _refused_for_other_reasons, 1.5),
    FaultClass("expired job rows", _forgotten_jobs, 0.5),
    RESTORED,
    FaultClass(REPLICATION, _replication, 0.7),
    FaultClass("device held on the OMA", _held, 0.7),
    FaultClass("process stopped past its lease", _freeze, 2.0),
)


def draw_faults(rng: Random, count: int) -> list[FaultClass]:
    return rng.choices(FAULTS, weights=[one.weight for one in FAULTS], k=count)


def _crash_soon(scene: Scene, rng: Random, daemon: OmaProcess) -> None:
    scene.crash_at(daemon.life.name, rng.randint(1, 60))


def _crash_volume_daemon_soon(scene: Scene, rng: Random, _daemon: OmaProcess) -> None:
    scene.crash_at(VOLUME_DAEMON, rng.randint(1, 20))


def _freeze_soon(scene: Scene, rng: Random, daemon: OmaProcess) -> None:
    for_s = rng.uniform(65.0, 200.0)
    scene.strike_later(rng.uniform(0.0, 1.0), lambda: _freeze_now(scene, daemon.life.name, for_s))


def _database_away_soon(scene: Scene, rng: Random, _daemon: OmaProcess) -> None:
    for_s = rng.choice((0.5, 5.0, 20.0, 60.0))
    scene.strike_later(rng.uniform(0.0, 1.0), lambda: _take_database_away(scene, for_s))


def _lose_commit_soon(scene: Scene, rng: Random, daemon: OmaProcess) -> None:
    daemon.door.lose_commit(rng.choice(tuple(CommitFault)), lambda: scene.strike("database error"))


SOON: Final = (
    _crash_soon,
    _crash_soon,
    _crash_volume_daemon_soon,
    _freeze_soon,
    _database_away_soon,
    _lose_commit_soon,
)
"""What strikes for certain when a daemon is at work."""


def top_up(scene: Scene, rng: Random, least: int) -> None:
    """Where fewer have struck when the first volume is sent home, others strike there and then."""

    def look(daemon: OmaProcess, event: Event) -> None:
        if event.type is not EventType.ACTION_STARTED or event.data.get("kind") != ActionKind.ATTACH_VOLUME.value:
            return
        scene.listeners.remove(look)
        scene.note_job_faults()
        for _ in range(least - scene.struck.total()):
            rng.choice(SOON)(scene, rng, daemon)

    scene.listeners.append(look)


async def strike_at_rest(scene: Scene, rng: Random, least: int) -> None:
    """The last resort: whoever is up dies although nothing is to be done; nothing may change by it."""
    scene.note_job_faults()
    for _ in range(least - scene.struck.total()):
        await asyncio.sleep(2 * RESTART_S)
        scene.strike("crash at rest")
        rng.choice([one for one in scene.processes() if not one.life.dead]).life.kill()


def arm_faults(scene: Scene, rng: Random, faults: Iterable[FaultClass]) -> None:
    for one in faults:
        one.arm(scene, rng)
