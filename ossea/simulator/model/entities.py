"""What the simulated cloud consists of; times are Unix seconds, sizes bytes, ids lower-case UUIDs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ossea.simulator.model.catalog import ACCOUNT


class VolumeState(StrEnum):
    ALLOCATED = "Allocated"
    CREATING = "Creating"
    READY = "Ready"
    MIGRATING = "Migrating"
    SNAPSHOTTING = "Snapshotting"
    REVERT_SNAPSHOTTING = "RevertSnapshotting"
    RESIZING = "Resizing"
    ATTACHING = "Attaching"
    UPLOADED = "Uploaded"
    COPYING = "Copying"
    DESTROY = "Destroy"
    EXPUNGING = "Expunging"
    EXPUNGED = "Expunged"


class SnapshotState(StrEnum):
    ALLOCATED = "Allocated"
    CREATING = "Creating"
    CREATED_ON_PRIMARY = "CreatedOnPrimary"
    BACKING_UP = "BackingUp"
    BACKED_UP = "BackedUp"
    DESTROYING = "Destroying"
    DESTROYED = "Destroyed"
    ERROR = "Error"


class VmState(StrEnum):
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    DESTROYED = "Destroyed"
    EXPUNGING = "Expunging"
    MIGRATING = "Migrating"
    ERROR = "Error"
    UNKNOWN = "Unknown"


class StopBehaviour(StrEnum):
    """What an unforced stop of a VM comes to; a forced one always succeeds."""

    NORMAL = "normal"
    HANGS = "hangs"
    REFUSES = "refuses"


ROOT = "ROOT"
DATADISK = "DATADISK"


@dataclass(slots=True)
class Host:
    id: str
    name: str
    state: str
    """Up, Down, Disconnected, Alert, Connecting, Creating, Error, Rebalancing, Removed."""


@dataclass(slots=True)
class Project:
    id: str
    name: str


@dataclass(slots=True)
class Vm:
    id: str
    name: str
    display_name: str
    state: str
    zone_id: str
    created: float
    number: int
    """CloudStack's inner number, in the instance name `i-2-<number>-VM`."""
    host_id: str | None = None
    destroyed_at: float | None = None
    removed: float | None = None
    stop: str = StopBehaviour.NORMAL
    project_id: str | None = None
    account: str = ACCOUNT

    @property
    def instance_name(self) -> str:
        return f"i-2-{self.number}-VM"


@dataclass(slots=True)
class Volume:
    id: str
    name: str
    size_bytes: int
    state: str
    zone_id: str
    disk_offering_id: str | None
    created: float
    type: str = DATADISK
    vm_id: str | None = None
    device_id: int | None = None
    attached: float | None = None
    device_on: str | None = None
    """The VM whose guest sees the device; it may differ from `vm_id` while a job runs or after a failed one."""
    removed: float | None = None
    format: str = "QCOW2"
    keeps_device: bool = False
    """Detaching it succeeds in CloudStack's database only: the guest keeps the device until it is released."""
    also_on: str | None = None
    """The VM that kept the device of an earlier attachment while the volume went to another VM."""
    file_number: int = 1
    """One more with each revert that replaced the file: who opened it before writes into a deleted one."""
    touches: int = 0
    """One more each time that a guest is given the device: from then on it may have written to it."""
    project_id: str | None = None
    account: str = ACCOUNT

    def is_shown_to(self, vm_id: str) -> bool:
        """Whether the VM's guest sees the device, whatever CloudStack's database says."""
        return vm_id in {self.device_on, self.also_on}


@dataclass(slots=True)
class Snapshot:
    id: str
    volume_id: str
    name: str
    state: str
    created: float
    size_bytes: int
    has_content: bool = False
    revertable: bool = True
    removed: float | None = None
    account: str = ACCOUNT


@dataclass(slots=True)
class VmSnapshot:
    id: str
    vm_id: str
    name: str
    state: str
    created: float
    removed: float | None = None


@dataclass(slots=True)
class Tag:
    id: str
    """`<resource type>/<resource id>/<key>`."""
    resource_type: str
    resource_id: str
    key: str
    value: str


@dataclass(slots=True)
class Event:
    id: str
    type: str
    level: str
    state: str
    description: str
    created: float
    resource_id: str | None = None


class JobStatus:
    """`jobstatus` as CloudStack numbers it."""

    PENDING = 0
    SUCCEEDED = 1
    FAILED = 2


class Phase(StrEnum):
    """Where a job stands inside; the outside sees only `jobstatus`."""

    QUEUED = "queued"
    RUNNING = "running"
    APPLIED = "applied"
    """The hypervisor is done, the job ends at its due time."""
    ENDED = "ended"


@dataclass(slots=True)
class Job:
    id: str
    command: str
    order: int
    created: float
    instance_type: str | None = None
    instance_id: str | None = None
    params: dict[str, Any] = field(default_factory=dict)
    """What the command noted for its execution."""
    queue: str | None = None
    """The VM in whose queue it stands, or None."""
    phase: str = Phase.QUEUED
    status: int = JobStatus.PENDING
    started: float | None = None
    due: float | None = None
    works_until: float | None = None
    """When the hypervisor is through; later than `due` where the job is marked failed while it works on."""
    next_at: float | None = None
    cancel_at: float | None = None
    ended: float | None = None
    result: dict[str, Any] | None = None
    fault: dict[str, Any] | None = None
    orphaned: bool = False
    """Nobody waits for it any more: the hypervisor finishes, CloudStack's database is not told."""
    error: str | None = None
    """What the driver said when it could not carry out the effect."""
