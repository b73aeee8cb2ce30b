"""How a VM was left behind, told as values: where its disks are, how far its failover got, what was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID, uuid5

from oma.domain.world import serial_of
from oma.workflow.vm_names import TEST_VM_INFIX, sanitise

MIB: Final = 1 << 20
SPACE: Final = UUID("6f3b0f0e-7a51-4c1e-9d3a-0d4f5b1c9e77")
FIRST_VCENTER: Final = "vcenter-a.example.net"
SECOND_VCENTER: Final = "vcenter-b.example.net"
CONFIG: Final = "demo"
"""The configuration that names this OMA."""
RETIRED: Final = "last-year"
"""A configuration that is no longer active; it names an appliance that was replaced."""
DEAD_FOR: Final = timedelta(hours=2)
"""Since when a dead failover has been dead: longer than `guards.alive_s` by far."""


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


class Tracking(StrEnum):
    """Where existing installations wrote a snapshot's id down."""

    VOLUMES = "ossea_volumes"
    MAPPINGS = "device_mappings"
    FAILOVER = "failover_jobs"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class SnapshotStory:
    """A snapshot of a disk as CloudStack shows it, and where its id was written down."""

    tracked_in: Tracking = Tracking.VOLUMES
    after: timedelta = timedelta(seconds=90)
    """Made so long after the failover began."""
    state: str = "BackedUp"
    size_bytes: int | None = None
    """None: the volume's."""
    listed: bool = True
    """False: somebody deleted it, and its id is still written down."""


TRACKED: Final = SnapshotStory()


@dataclass(frozen=True, slots=True)
class DiskStory:
    place: Place = Place.TEST_VM
    snapshots: tuple[SnapshotStory, ...] = (TRACKED,)
    """The first one holds the content that a clean-up has to bring back."""
    written: bool = True
    """Whether anything wrote to it since; False: its content is still the replication's."""
    export: Export | None = None
    stale_mapping: bool = False
    """The Volume Daemon's row still says that a free volume hangs on the test VM."""
    tracked: str | None = None
    """Name of the VM whose first snapshot is tracked here by mistake; None: its own."""
    size_bytes: int = MIB


Steps = tuple[tuple[str, str], ...]
"""Name and status of the failover's JobLog steps, in order."""

POWER_OFF: Final = ("source-vm-power-off", "completed")
SNAPSHOT: Final = ("multi-volume-snapshot", "completed")
INJECTION: Final = ("virtio-driver-injection", "completed")
CREATION: Final = ("vm-creation", "completed")
ATTACHMENT: Final = ("volume-attachment", "completed")
STARTUP: Final = ("vm-startup-and-validation", "running")


@dataclass(frozen=True, slots=True)
class ReplicationStory:
    """A replication after the one that the failover began from; the times count from the failover's begin."""

    status: str = "completed"
    started: timedelta = timedelta(minutes=30)
    ended: timedelta | None = timedelta(minutes=40)
    """None: it runs, and its row was touched just now."""


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
    was_started: bool | None = None
    """Whether CloudStack's event log shows a start of it; None: where it is running."""
    recorded: bool = True
    """Whether the failover wrote that VM's id down."""
    own_root: bool = False
    """That VM still has the root volume that it was made with."""
    alive: bool = False
    """Its JobLog was written to just now."""
    replications: tuple[ReplicationStory, ...] = ()
    stored_change_id: bool = False
    """A replication that has no other trace stored a change id after the snapshots."""
    rows_missing: int = 0
    """So many of the last disks have no row in `ossea_volumes`."""
    claimed_by: str | None = None
    """Name of another VM whose records name this one's first volume too."""
    config: str | None = CONFIG
    """Name of the configuration that its rows refer to; None: they refer to none."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a seeded VM, with the ids that all systems know it by."""

    number: int
    story: DiskStory
    name: str
    volume_id: str
    snapshot_ids: tuple[str, ...]
    """As many as the story has snapshots, in their order."""
    other_id: str | None = None
    """The foreign snapshot that is tracked for it by mistake."""

    @property
    def snapshot_id(self) -> str:
        """The snapshot that it goes back to; empty where it has none."""
        return self.snapshot_ids[0] if self.snapshot_ids else ""

    @property
    def is_good(self) -> bool:
        """It never left the OMA, and nothing but the replication wrote to it."""
        return self.story.place is Place.OMA and not self.story.written

    @property
    def listed_ids(self) -> tuple[str, ...]:
        """Snapshots that CloudStack shows."""
        pairs = zip(self.snapshot_ids, self.story.snapshots, strict=True)
        return tuple(one for one, story in pairs if story.listed)

    def tracked_in(self, place: Tracking) -> str | None:
        """The id that stands in this place."""
        if place is Tracking.VOLUMES and self.other_id is not None:
            return self.other_id
        pairs = zip(self.snapshot_ids, self.story.snapshots, strict=True)
        return next((one for one, story in pairs if story.tracked_in is place), None)

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
    def replicated_at(self) -> datetime:
        """When the replication ended that the failover began from."""
        return self.begun_at - timedelta(hours=1)

    @property
    def last_sign_at(self) -> datetime:
        return self.begun_at + timedelta(minutes=10)

    @property
    def ids(self) -> frozenset[str]:
        """Everything of it that a CloudStack call could name."""
        own = {self.test_vm_id, self.foreign_vm_id}
        for disk in self.disks:
            own |= {disk.volume_id, *disk.snapshot_ids}
        return frozenset(own)

    def change_id(self, disk: Disk) -> str:
        """What the disk's next replication goes on from."""
        return f"52 de c0 d9/{disk.number}-{len(self.story.replications)}"

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
        test_vm_name=sanitise(f"{story.name}{TEST_VM_INFIX}{int(begun_at.timestamp())}"),
        foreign_vm_id=uid("foreign vm", *key),
        begun_at=begun_at,
        disks=tuple(
            Disk(
                number=number,
                story=disk,
                name=f"{story.name}-disk-{number}",
                volume_id=uid("volume", *key, number),
                snapshot_ids=tuple(_snapshot_id(key, number, at) for at in range(len(disk.snapshots))),
                other_id=_snapshot_id((story.vcenter, disk.tracked), 0, 0) if disk.tracked else None,
            )
            for number, disk in enumerate(story.disks)
        ),
    )


def _snapshot_id(key: tuple[str, str], number: int, at: int) -> str:
    return uid("snapshot", *key, number, at)
