"""Everything the guards judge by, collected once and handed over as one value."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oma.domain.records import OmaConfig, VmRecords
from oma.domain.world import CloudSnapshot, CloudVm, DeviceScan, Unanswered, VolumeFacts


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """The figures that the guards use; all in seconds."""

    alive_s: float = 900.0
    oma_identity: str = "dmi"


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """What CloudStack shows for one tracked snapshot id, and where the id was found."""

    volume_id: str
    snapshot_id: str
    tracked_in: tuple[str, ...]
    cloud: CloudSnapshot | Unanswered | None


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

    def find_vm(self, vm_id: str | None) -> CloudVm | None:
        return next((vm for vm in self.vms if vm.id == vm_id), None)

    def get_facts(self, volume_id: str) -> VolumeFacts:
        return next(facts for facts in self.volumes if facts.volume_id == volume_id)

    def snapshots_of(self, volume_id: str) -> tuple[SnapshotFacts, ...]:
        return tuple(facts for facts in self.snapshots if facts.volume_id == volume_id)
