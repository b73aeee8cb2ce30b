"""Who holds a volume's device on the OMA, as the Volume Daemon's scan found it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

NBD_CLIENT = "nbd_client"
INJECTION = "injection"
NBD_SERVER = "nbd_server"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process as seen: the number alone may by now stand for another one."""

    pid: int
    start_ticks: int

    def as_json(self) -> dict[str, int]:
        return {"pid": self.pid, "start_ticks": self.start_ticks}

    @classmethod
    def from_json(cls, data: dict[str, int]) -> ProcessId:
        return cls(data["pid"], data["start_ticks"])


@dataclass(frozen=True, slots=True)
class DeviceHolder:
    """One reason why the device must not be taken away."""

    kind: str
    """process, mount, loop, device_mapper, md, block, filesystem, swap, nbd_client or kernel."""
    name: str
    """The process's name, the mount point, the block device, the client's address."""
    process: ProcessId | None = None
    command: str | None = None
    since: datetime | None = None
    role: str | None = None
    """Of a process: injection, nbd_server or unknown."""
    tree: ProcessId | None = None
    """The root of the injection's process tree."""
    endable: bool = False
    """Whether the Volume Daemon would end it: part of a driver injection on exactly this device."""
    why_not: str | None = None
    namespace: int | None = None
    """The mount namespace that a mount was seen in."""

    @property
    def sentence(self) -> str:
        """Who it is and since when: `process 4711 (qemu-nbd …) since …`."""
        return f"{self.who} since {self.since.isoformat(timespec='seconds')}" if self.since else self.who

    @property
    def who(self) -> str:
        """Without its time, for what has to be the same from scan to scan: seconds computed from ticks may differ."""
        if self.process is not None and self.kind == "process":
            return f"process {self.process.pid} ({self.command or self.name})"
        return f"{self.words} {self.name}"

    @property
    def words(self) -> str:
        return {"nbd_client": "NBD client", "device_mapper": "device-mapper"}.get(self.kind, self.kind)

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "pid": self.process.pid if self.process else None,
            "start_ticks": self.process.start_ticks if self.process else None,
            "command": self.command,
            "since": self.since.isoformat() if self.since else None,
            "role": self.role,
            "tree": self.tree.as_json() if self.tree else None,
            "endable": self.endable,
            "why_not": self.why_not,
            "namespace": self.namespace,
        }


@dataclass(frozen=True, slots=True)
class DeviceHolders:
    """One volume's holders from a scan begun at `scanned_at`; `complete`: proven, and it could read everything."""

    volume_id: str
    complete: bool
    holders: tuple[DeviceHolder, ...]
    unread: tuple[str, ...]
    """What could not be read or proven, a sentence each."""
    scanned_at: datetime

    @property
    def clients(self) -> tuple[DeviceHolder, ...]:
        """Connected NBD clients: a replication that is alive."""
        return tuple(holder for holder in self.holders if holder.kind == NBD_CLIENT)

    @property
    def others(self) -> tuple[DeviceHolder, ...]:
        """Everything but NBD clients and the server that serves them."""
        return tuple(one for one in self.holders if one.kind != NBD_CLIENT and one.role != NBD_SERVER)
