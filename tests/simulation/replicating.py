"""A replication that somebody starts although a clean-up goes on: it holds devices of the OMA, writes, and is judged.

The scheduler leaves a VM that is being cleaned up alone; a person, or a scheduler of another making, does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import insert, update

from database.tables import replication_jobs, vm_disks
from tests.fakes.scenario import BrokenVm
from tests.simulation.scene import Scene

NAME: Final = "replication started in the middle"
TOUCHED_EVERY_S: Final = 30.0
GRACE_S: Final = 70.0
"""A detach may come so long after the look that it was sent by: its call is good for that long."""
LONG_S: Final = 1000.0
SPOILT: Final = "an increment over bytes that it was not made for"
CLIENT: Final = "10.7.0.9:40112"


@dataclass(frozen=True, slots=True)
class Connected:
    """A client on one device, from when to when."""

    volume_id: str
    since: float
    until: float


class Replication:
    """One of them; `writes` off: it is cancelled before it has copied anything."""

    def __init__(self, scene: Scene, vm: BrokenVm, for_s: float, *, writes: bool) -> None:
        self._scene = scene
        self._vm = vm
        self._for_s = for_s
        self._writes = writes
        self._number = 0
        self._since = 0.0
        self._disks: list[int] = []

    @property
    def _id(self) -> str:
        return f"{self._number}-{self._vm.replication_id}"[:60]

    def start(self) -> None:
        """Connects to every volume that the OMA shows."""
        scene, now = self._scene, self._scene.clock.now()
        scene.strike(NAME)
        self._number = 1 + len(scene.read(replication_jobs, vm_context_id=self._vm.context_id))
        self._since = scene.clock.unix()
        values = {"id": self._id, "vm_context_id": self._vm.context_id, "status": "running"}
        statement = insert(replication_jobs).values(**values, started_at=now, updated_at=now)
        scene.database.run(lambda connection: connection.execute(statement))
        if self._writes:
            volumes = enumerate(self._vm.volume_ids)
            self._disks = [number for number, volume_id in volumes if scene.machine.shows(volume_id)]
            for number in self._disks:
                scene.machine.clients[self._vm.volume_id(number)] = CLIENT
        scene.later(min(TOUCHED_EVERY_S, self._for_s), self._go_on)

    def _go_on(self) -> None:
        left_s = self._since + self._for_s - self._scene.clock.unix()
        if left_s <= 0:
            self._end()
            return
        self._update(status="running")
        self._scene.later(min(TOUCHED_EVERY_S, left_s), self._go_on)

    def _end(self) -> None:
        """It is complete if every device stayed, and then stores where the next one goes on from."""
        scene, vm = self._scene, self._vm
        stayed = [number for number in self._disks if scene.machine.shows(vm.volume_id(number))]
        for number in self._disks:
            scene.machine.clients.pop(vm.volume_id(number), None)
            scene.connected.append(Connected(vm.volume_id(number), self._since, scene.clock.unix()))
        if not stayed or stayed != self._disks:
            self._update(status="failed" if self._writes else "cancelled", completed_at=scene.clock.now())
            return
        for number in stayed:
            self._write(number)
        self._update(status="completed", completed_at=scene.clock.now(), change_id=f"change-{self._number}")

    def _write(self, number: int) -> None:
        """An increment is worth something only over the very content that it was made for."""
        scene, vm = self._scene, self._vm
        volume_id = vm.volume_id(number)
        good, _ = scene.replicated.get(volume_id, (vm.clean_content(number), ""))
        held = scene.world.content[volume_id]
        written = f"{held} and increment {self._number}"
        change_id = f"change-{number}-{self._number}"
        scene.world.content[volume_id] = written
        scene.replicated[volume_id] = (written if held == good else SPOILT, change_id)
        disks = (vm_disks.c.vm_context_id == vm.context_id) & (vm_disks.c.disk_id == f"disk-{2000 + number}")
        statement = update(vm_disks).where(disks).values(disk_change_id=change_id, updated_at=scene.clock.now())
        scene.database.run(lambda connection: connection.execute(statement))

    def _update(self, **values: object) -> None:
        statement = update(replication_jobs).where(replication_jobs.c.id == self._id)
        statement = statement.values(updated_at=self._scene.clock.now(), **values)
        self._scene.database.run(lambda connection: connection.execute(statement))


def replicate_while_nobody_begins(scene: Scene) -> None:
    """Every VM is replicated, and long connected by the time that anybody can begin a run: the database was away."""
    for vm in scene.vms.values():
        Replication(scene, vm, LONG_S, writes=True).start()
    scene.set_database_away(True)
    scene.later(GRACE_S + 1.0, lambda: scene.set_database_away(False))


def detached_under_a_client(scene: Scene) -> list[str]:
    """Detaches from the OMA that were sent although a client had been connected for long."""
    return [
        f"{call.words} took {call.volume_id} from under a connected NBD client"
        for call in scene.world.orders
        if call.command == "detachVolume" and call.accepted and call.seen.holder == scene.world.oma_vm_id
        for one in scene.connected
        if one.volume_id == call.volume_id and one.since + GRACE_S < call.at <= one.until
    ]
