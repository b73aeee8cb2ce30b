"""Everything the guards judge by, collected once and handed over as one value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oma.domain.records import OmaConfig, VmRecords
from oma.domain.words import SILENT, Words
from oma.domain.world import (
    CloudSnapshot,
    CloudVm,
    CloudVolume,
    DeviceScan,
    Mark,
    Unanswered,
    VmEvent,
    VolumeFacts,
)


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """The figures that the guards use; all in seconds."""

    alive_s: float = 900.0
    oma_identity: str = "dmi"
    installation: str = "oma"
    """Our own name in the markers on volumes."""
    markers_required: bool = True
    """Whether a run needs its markers; else a role that may not tag goes on without them."""


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """What CloudStack shows for one tracked snapshot id, and where the id was found."""

    volume_id: str | None
    """None: a failover's row tracks it, and CloudStack shows it on none of this VM's volumes."""
    snapshot_id: str
    tracked_in: tuple[str, ...]
    cloud: CloudSnapshot | Unanswered | None


@dataclass(frozen=True, slots=True)
class VmHistory:
    """What CloudStack's event log tells of one VM."""

    vm_id: str
    events: tuple[VmEvent, ...] | Unanswered


@dataclass(frozen=True, slots=True)
class VmContents:
    """The volumes on a VM that may be a leftover of this failover."""

    vm_id: str
    volumes: tuple[CloudVolume, ...] | Unanswered


@dataclass(frozen=True, slots=True)
class Evidence:
    """The world and the records around one VM at `observed_at`."""

    records: VmRecords
    config: OmaConfig | None
    """The one configuration that the VM's volumes name; None when it cannot be told."""
    volumes: tuple[VolumeFacts, ...]
    snapshots: tuple[SnapshotFacts, ...]
    vms: tuple[CloudVm, ...]
    """The OMA, every recorded destination VM that CloudStack lists, and every VM that holds one of the volumes."""
    devices: DeviceScan | Unanswered
    volumes_on_oma: tuple[str, ...] | Unanswered
    """Ids of all volumes that CloudStack shows on the OMA."""
    unanswered: tuple[Unanswered, ...]
    limits: GuardLimits
    observed_at: datetime
    vm_snapshot_holders: tuple[str, ...] = ()
    """Ids of VMs that hold one of the volumes and carry a VM snapshot."""
    words: Words = SILENT
    """What the person who asks insists on."""
    marks: tuple[Mark, ...] | Unanswered = ()
    """The clean-up markers on this VM's volumes and tracked snapshots."""
    own_snapshots: tuple[CloudSnapshot, ...] | Unanswered = ()
    """Every snapshot on this VM's volumes that carries the name of a test failover, tracked or not."""
    named_snapshots: tuple[CloudSnapshot, ...] | Unanswered = ()
    """Those that the person named (`words.snapshots`), as far as CloudStack lists them."""
    named_vms: tuple[CloudVm, ...] | Unanswered = ()
    """VMs whose name begins as a test VM of this one would; asked only where a failover recorded none."""
    histories: tuple[VmHistory, ...] = ()
    """Of destination VMs of live failovers, of destroyed ones, and of those known by name."""
    contents: tuple[VmContents, ...] = ()
    """Of VMs known by name, and of destroyed destination VMs."""
    had_failed_run: bool = False
    """A run of ours on this VM failed or parked since its last good one."""

    def find_vm(self, vm_id: str | None) -> CloudVm | None:
        return next((vm for vm in self.vms if vm.id == vm_id), None)

    def find_history(self, vm_id: str) -> VmHistory | None:
        return next((history for history in self.histories if history.vm_id == vm_id), None)

    def find_contents(self, vm_id: str) -> VmContents | None:
        return next((contents for contents in self.contents if contents.vm_id == vm_id), None)

    def get_facts(self, volume_id: str) -> VolumeFacts:
        return next(facts for facts in self.volumes if facts.volume_id == volume_id)

    def snapshots_of(self, volume_id: str | None) -> tuple[SnapshotFacts, ...]:
        return tuple(facts for facts in self.snapshots if facts.volume_id == volume_id)
