"""What CloudStack, the Volume Daemon and the OMA say, as values; ids are CloudStack's UUIDs, sizes are in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from oma.domain.holders import DeviceHolders

SETTLED_VOLUME_STATES = frozenset({"Ready", "Allocated", "Uploaded"})
MARK_KEY = "oma-cleanup"
EPOCH_KEY = "oma-epoch"
"""On the OMA VM: `<installation>:<number>`, which grows with each start."""
"""The tag that says which installation's job works on a volume."""
GONE_VM_STATES = frozenset({"Destroyed", "Expunging"})


@dataclass(frozen=True, slots=True)
class CloudVolume:
    """A volume as `listVolumes` shows it."""

    id: str
    name: str
    state: str
    size_bytes: int
    type: str = "DATADISK"
    vm_id: str | None = None
    vm_name: str | None = None
    vm_state: str | None = None
    device_id: int | None = None
    pending_job_id: str | None = None
    attached_at: datetime | None = None
    """When it was attached to the VM that holds it now."""

    @property
    def is_root(self) -> bool:
        return self.type == "ROOT"

    @property
    def is_settled(self) -> bool:
        """Nothing is being done to it: a settled state and no pending job."""
        return self.state in SETTLED_VOLUME_STATES and self.pending_job_id is None


@dataclass(frozen=True, slots=True)
class CloudSnapshot:
    """A snapshot as `listSnapshots` shows it."""

    id: str
    volume_id: str | None
    name: str
    state: str
    created: datetime | None = None
    size_bytes: int | None = None
    revertable: bool | None = None
    pending_job_id: str | None = None


@dataclass(frozen=True, slots=True)
class CloudVm:
    """A VM as `listVirtualMachines` shows it."""

    id: str
    name: str
    state: str
    display_name: str | None = None
    created: datetime | None = None
    pending_job_id: str | None = None

    @property
    def is_stopped(self) -> bool:
        return self.state == "Stopped"

    @property
    def is_gone(self) -> bool:
        return self.state in GONE_VM_STATES


@dataclass(frozen=True, slots=True)
class VmHost:
    """The hypervisor that a VM runs on."""

    id: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class VmEvent:
    """A line of CloudStack's event log about one VM."""

    type: str
    """Such as `VM.CREATE`, `VM.START`, `VM.DESTROY`."""
    at: datetime | None
    text: str = ""
    state: str | None = None
    """Scheduled, Started or Completed; older servers leave it out."""


class Marked(StrEnum):
    """What carries markers, by CloudStack's names of resource types."""

    VOLUME = "Volume"
    SNAPSHOT = "Snapshot"


@dataclass(frozen=True, slots=True)
class Mark:
    """A tag `oma-cleanup` on a volume or a snapshot: some installation works on it, or left it."""

    volume_id: str
    """Of a snapshot's marker: the snapshot's id."""
    value: str
    """`<installation>/<job>`."""
    what: Marked = Marked.VOLUME

    @property
    def installation(self) -> str:
        return self.value.partition("/")[0]

    @property
    def job_id(self) -> str:
        return self.value.partition("/")[2]


def build_mark(installation: str, job_id: str) -> str:
    """The value of a marker."""
    return f"{installation}/{job_id}"


@dataclass(frozen=True, slots=True)
class Mapping:
    """What the Volume Daemon answers to "where is this volume?"; its word alone proves nothing."""

    volume_id: str
    vm_id: str | None
    device_path: str
    operation_mode: str
    linux_state: str | None = None


@dataclass(frozen=True, slots=True)
class DeviceLink:
    """A link under the OMA's `device_root`."""

    link: str
    serial: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceScan:
    """The devices that the OMA itself shows, from one scan begun at `scanned_at`."""

    product_uuid: str | None
    product_uuid_error: str | None
    scanned_at: datetime
    links: tuple[DeviceLink, ...]

    def shows(self, volume_id: str) -> bool:
        serial = serial_of(volume_id)
        return any(link.serial == serial for link in self.links)


def serial_of(volume_id: str) -> str:
    """The serial that a guest sees: the UUID's first 20 characters, hyphens out.

    Source: CloudStack, `LibvirtComputingResource.diskUuidToSerial`.
    """
    return volume_id.replace("-", "")[:20]


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question that nobody answered; it is never read as "no"."""

    question: str
    asked: str
    reason: str
    code: str | None = None
    """The other side's own code, where it answered with an error."""

    def as_json(self) -> dict[str, str]:
        return {"question": self.question, "asked": self.asked, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """All that was observed about one volume: the three sides, each an answer or an `Unanswered`."""

    volume_id: str
    cloud: CloudVolume | Unanswered | None
    """None: CloudStack answered and does not list it."""
    mapping: Mapping | Unanswered | None
    """None: the Volume Daemon answered that it is detached."""
    on_oma: bool | Unanswered
    """Whether the OMA shows its device."""
    holders: DeviceHolders | Unanswered | None = None
    """Who holds its device on the OMA; None: the OMA shows none."""
