"""How a VM was left behind, told as values: where its disks are, how far its failover got, what was recorded."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid5

from oma.domain.world import serial_of

MIB: Final = 1 << 20
SPACE: Final = UUID("6f3b0f0e-7a51-4c1e-9d3a-0d4f5b1c9e77")
FIRST_VCENTER: Final = "vcenter-a.example.net"
SECOND_VCENTER: Final = "vcenter-b.example.net"
DEAD_FOR: Final = timedelta(hours=2)
"""Since when a dead failover has been dead: longer than `guards.alive_s` by far."""
LONGEST_VM_NAME: Final = 63


class Place(StrEnum):
    """Where CloudStack has a volume."""

    OMA = "oma"
    TEST_VM = "test_vm"
    NOWHERE = "nowhere"
    FOREIGN_VM = "foreign_vm"


@dataclass(frozen=True, slots=True)
class Export:
    """An NBD export of a volume that is on the OMA."""

    name: str
    port: int = 10809
    file: str = ""
    """The configuration file's name; empty: `<name>.conf`."""
    extra: str = ""
    """A line that somebody added to the file by hand."""


@dataclass(frozen=True, slots=True)
class DiskStory:
    place: Place = Place.TEST_VM
    export: Export | None = None
    stale_mapping: bool = False
    """The Volume Daemon's row still says that a free volume hangs on the test VM."""
    tracked: str | None = None
    """Name of the VM whose first snapshot is tracked here by mistake; None: its own."""
    size_bytes: int = MIB


Steps = tuple[tuple[str, str], ...]
"""Name and status of the failover's JobLog steps, in order."""

SNAPSHOT: Final = ("multi-volume-snapshot", "completed")
INJECTION: Final = ("virtio-driver-injection", "completed")
CREATION: Final = ("vm-creation", "completed")
ATTACHMENT: Final = ("volume-attachment", "completed")
STARTUP: Final = ("vm-startup-and-validation", "running")


@dataclass(frozen=True, slots=True)
class VmStory:
    """A VM and what is left of its newest failover."""

    name: str
    disks: tuple[DiskStory, ...] = (DiskStory(), DiskStory())
    vcenter: str = FIRST_VCENTER
    job_type: str = "test"
    context_status: str = "failed_over_test"
    failover_status: str = "pending"
    joblog_status: str = "running"
    steps: Steps = (SNAPSHOT, INJECTION, CREATION, ATTACHMENT, STARTUP)
    test_vm: str | None = "Running"
    """State of the VM that the failover made; None: it made none."""
    alive: bool = False
    """Its JobLog was written to just now."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a seeded VM, with the ids that all systems know it by."""

    number: int
    story: DiskStory
    name: str
    volume_id: str
    snapshot_id: str
    tracked_id: str

    @property
    def disk_id(self) -> str:
        return f"disk-{2000 + self.number}"

    @property
    def link(self) -> str:
        """The name of its device on the OMA."""
        return f"virtio-{serial_of(self.volume_id)}"


@dataclass(frozen=True, slots=True)
class SeededVm:
    """A VM as it was put into the database and the cloud."""

    story: VmStory
    context_id: str
    failover_id: str
    replication_id: str
    test_vm_id: str
    test_vm_name: str
    foreign_vm_id: str
    begun_at: datetime
    """When the failover began."""
    disks: tuple[Disk, ...]

    @property
    def name(self) -> str:
        return self.story.name

    @property
    def snapshot_at(self) -> datetime:
        return self.begun_at + timedelta(seconds=90)

    @property
    def last_sign_at(self) -> datetime:
        return self.begun_at + timedelta(minutes=10)

    @property
    def ids(self) -> frozenset[str]:
        """Everything of it that a CloudStack call could name."""
        own = {self.test_vm_id, self.foreign_vm_id}
        for disk in self.disks:
            own |= {disk.volume_id, disk.snapshot_id}
        return frozenset(own)

    @property
    def volume_ids(self) -> tuple[str, ...]:
        return tuple(disk.volume_id for disk in self.disks)


def uid(*words: object) -> str:
    """The same UUID for the same words, always."""
    return str(uuid5(SPACE, "\x00".join(str(word) for word in words)))


def cast(story: VmStory, now: datetime) -> SeededVm:
    """The story with ids and times; pure."""
    key = (story.vcenter, story.name)
    begun_at = now - timedelta(minutes=10) if story.alive else now - DEAD_FOR
    begun_at = begun_at.replace(microsecond=0)
    return SeededVm(
        story=story,
        context_id=f"ctx-{uid('context', *key)}",
        failover_id=f"failover-{uid('failover', *key)}",
        replication_id=f"job-{uid('replication', *key)}",
        test_vm_id=uid("test vm", *key),
        test_vm_name=build_test_vm_name(story.name, begun_at),
        foreign_vm_id=uid("foreign vm", *key),
        begun_at=begun_at,
        disks=tuple(
            Disk(
                number=number,
                story=disk,
                name=f"{story.name}-disk-{number}",
                volume_id=uid("volume", *key, number),
                snapshot_id=uid("snapshot", *key, number),
                tracked_id=uid("snapshot", story.vcenter, disk.tracked or story.name, 0 if disk.tracked else number),
            )
            for number, disk in enumerate(story.disks)
        ),
    )


def build_test_vm_name(vm_name: str, begun_at: datetime) -> str:
    """As existing installations name test VMs: a host name that ends in the failover's Unix time."""
    plain = unicodedata.normalize("NFKC", f"{vm_name}-test-{int(begun_at.timestamp())}").lower()
    name = re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]", "-", plain)).strip("-")
    return (f"vm-{name}" if name[:1].isdigit() else name)[:LONGEST_VM_NAME]
