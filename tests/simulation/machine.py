"""The OMA's own hardware on virtual time: the links that its guest shows, and the files of nbd-server.

It outlives the daemons that look at it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from tests.fakes.world import FakeWorld
from tests.simulation.virtual_time import LIFE
from volume_daemon.holders.report import Holder, HolderKind, HolderState
from volume_daemon.models import DeviceLink, Devices
from volume_daemon.server.devices import Seen, Sight, serial_of
from volume_daemon.server.nbd import NbdFiles
from volume_daemon.server.records import RecordedExport

DEVICE_ROOT = Path("/dev/disk/by-id")
NBD_DIR = Path("/etc/nbd-server/conf.d")


class Machine:
    """The OMA's hardware: which links it shows, and which files lie in nbd-server's directory. It outlives its daemons."""

    def __init__(self, world: FakeWorld) -> None:
        self.world = world
        self.files: dict[Path, str] = {}
        self.late: dict[str, float] = {}
        """Volume id → how many seconds after its attachment its link appears."""
        self.on_late: Callable[[], None] | None = None
        """Told when somebody looks for a link that is late."""
        self.appeared: dict[str, float] = {}
        self.clients: dict[str, str] = {}
        """Volume id → the NBD client that reads and writes it."""
        self.held: dict[str, Holder] = {}
        """Volume id → a process that has its device open."""
        self.unread: set[str] = set()
        """Volumes of whose holders nothing can be told."""
        self.on_held: Callable[[str], None] | None = None
        """Told each time that somebody asks for the holders of such a volume."""

    def let_go(self, volume_ids: Sequence[str]) -> None:
        """Whoever held them has ended; a replication is nobody's to end."""
        for volume_id in volume_ids:
            self.held.pop(volume_id, None)
            self.unread.discard(volume_id)

    def holders_of(self, volume_id: str) -> tuple[HolderState, tuple[Holder, ...], tuple[str, ...]]:
        """As a scan finds them: the state, who, and what it could not read."""
        found = [self.held[volume_id]] if volume_id in self.held else []
        if volume_id in self.clients:
            found.append(Holder(HolderKind.NBD_CLIENT, self.clients[volume_id]))
        unread = ("/proc/4711/fd",) if volume_id in self.unread else ()
        if (unread or volume_id in self.held) and self.on_held is not None:
            self.on_held(volume_id)
        state = HolderState.UNKNOWN if unread else HolderState.HELD if found else HolderState.NONE
        return state, tuple(found), unread

    def settle(self) -> None:
        """What is there now has been there for long."""
        for volume_id in self.world.device_ids_on(self.world.oma_vm_id):
            self.appeared[volume_id] = float("-inf")

    def shows(self, volume_id: str) -> bool:
        self.world.advance()
        return volume_id in self._shown()

    def list_links(self) -> list[str]:
        self.world.advance()
        return sorted(self._shown())

    def _shown(self) -> set[str]:
        there = set(self.world.device_ids_on(self.world.oma_vm_id))
        now = self.world.clock.unix()
        for volume_id in list(self.appeared):
            if volume_id not in there:
                del self.appeared[volume_id]
        for volume_id in there:
            self.appeared.setdefault(volume_id, now)
        late = {one for one in there if now - self.appeared[one] < self.late.get(one, 0.0)}
        if late and self.on_late is not None:
            tell, self.on_late = self.on_late, None
            tell()
        return there - late


class SimulatedDevices:
    """`DeviceWatch` over the machine."""

    problem: str | None = None

    def __init__(self, machine: Machine, now: Callable[[], datetime]) -> None:
        self._machine = machine
        self._now = now
        self.device_root = DEVICE_ROOT

    def link_of(self, volume_id: str) -> Path:
        return DEVICE_ROOT / f"virtio-{serial_of(volume_id)}"

    async def look(self, volume_id: str, cloud_bytes: int = 0) -> Seen:
        await asyncio.sleep(0)
        if not self._machine.shows(volume_id):
            return Seen(Sight.ABSENT, self.link_of(volume_id))
        return Seen(Sight.PRESENT, self.link_of(volume_id), self._size(volume_id))

    async def scan(self) -> Devices:
        scanned_at = self._now()
        await asyncio.sleep(0)
        links = tuple(
            DeviceLink(str(self.link_of(one)), serial_of(one), self._size(one), f"/dev/{one[:6]}")
            for one in self._machine.list_links()
        )
        return Devices(self._machine.world.oma_vm_id, None, scanned_at, links)

    async def wait_present(self, volume_id: str, cloud_bytes: int, timeout_s: float) -> Seen:
        return await self._wait(volume_id, cloud_bytes, timeout_s, Sight.PRESENT)

    async def wait_absent(self, volume_id: str, timeout_s: float) -> Seen:
        return await self._wait(volume_id, 0, timeout_s, Sight.ABSENT)

    async def _wait(self, volume_id: str, cloud_bytes: int, timeout_s: float, wanted: Sight) -> Seen:
        until = asyncio.get_running_loop().time() + timeout_s
        pause_s = 0.1
        while True:
            seen = await self.look(volume_id, cloud_bytes)
            if seen.sight is wanted or asyncio.get_running_loop().time() >= until:
                return seen
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, 5.0)

    def _size(self, volume_id: str) -> int:
        return self._machine.world.model.world.volumes.rows[volume_id].size_bytes


class SimulatedNbd(NbdFiles):
    """nbd-server's directory, kept by the machine."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(NBD_DIR, None)
        self._machine = machine

    async def check_writable(self) -> None:
        await self._reach()

    async def record(
        self, exports: Sequence[RecordedExport], earlier: Sequence[RecordedExport]
    ) -> tuple[RecordedExport, ...]:
        await self._reach()
        texts = {export.name: export.text for export in earlier}
        return tuple(
            replace(one, text=self._machine.files.get(self._file_of(one), texts.get(one.name))) for one in exports
        )

    async def withdraw(self, exports: Sequence[RecordedExport]) -> None:
        await self._reach()
        for export in exports:
            self._machine.files.pop(self._file_of(export), None)

    async def put(self, exports: Sequence[RecordedExport]) -> None:
        await self._reach()
        for export in exports:
            if export.text is not None:
                self._machine.files[self._file_of(export)] = export.text

    async def _reach(self) -> None:
        life = LIFE.get()
        if life is not None:
            life.require()
        await asyncio.sleep(0)

    @staticmethod
    def _file_of(export: RecordedExport) -> Path:
        return NBD_DIR / f"{export.name.replace('/', '_')}.conf"
