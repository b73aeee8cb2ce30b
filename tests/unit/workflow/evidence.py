"""Evidence for the guards, made readable: a healthy dead test failover, changed in one place by each test.

Two volumes hang on a stopped test VM, the first as its root; each has one good snapshot; everybody answered.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from oma.domain.evidence import Evidence, GuardLimits, SnapshotFacts
from oma.domain.holders import INJECTION, DeviceHolder, DeviceHolders, ProcessId
from oma.domain.records import (
    DiskRecord,
    FailoverRecord,
    JobLogRecord,
    MappingRecord,
    OmaConfig,
    ReplicationRecord,
    VmContext,
    VmRecords,
    VolumeRecord,
)
from oma.domain.world import (
    CloudSnapshot,
    CloudVm,
    CloudVolume,
    DeviceLink,
    DeviceScan,
    Mapping,
    Unanswered,
    VolumeFacts,
    serial_of,
)

NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
FAILED_OVER_AT = NOW - timedelta(hours=2)
SNAPSHOT_AT = NOW - timedelta(minutes=110)
REPLICATED_AT = NOW - timedelta(hours=4)
OMA = "03000200-0400-0500-0006-000700080009"
TEST_VM = "7e570000-0000-4000-8000-000000000001"
FOREIGN_VM = "f0000000-0000-4000-8000-000000000001"
GIB = 1 << 30
FAILOVER = "failover-1"


def volume_id(number: int) -> str:
    return f"{number:08x}-aaaa-4000-8000-000000000000"


def snapshot_id(number: int) -> str:
    return f"{number:08x}-5555-4000-8000-000000000000"


def unanswered(question: str = "where the volumes are", asked: str = "CloudStack") -> Unanswered:
    return Unanswered(question, asked, "no answer within 20 s")


def build(**changes: Any) -> Evidence:
    """The healthy dead test failover, with these fields of `Evidence` replaced."""
    values: dict[str, Any] = {
        "records": records(),
        "config": OmaConfig(1, "production", OMA, is_active=True),
        "volumes": (on_test_vm(0), on_test_vm(1)),
        "snapshots": (tracked(0), tracked(1)),
        "vms": (CloudVm(OMA, "oma", "Running"), CloudVm(TEST_VM, "pgtest1-test", "Stopped")),
        "devices": scan(),
        "volumes_on_oma": (),
        "unanswered": (),
        "limits": GuardLimits(),
        "observed_at": NOW,
    }
    return Evidence(**{**values, **changes})


def records(**changes: Any) -> VmRecords:
    values: dict[str, Any] = {
        "context": VmContext("ctx-1", "pgtest1", "vc-1", "failed_over_test", "repl-1", 1),
        "volumes": (volume_row(0), volume_row(1)),
        "disks": (disk_row(0), disk_row(1)),
        "mappings": (mapping_row(0), mapping_row(1)),
        "failovers": (failover(),),
        "joblog": (joblog(),),
        "replications": (replication(),),
        "configs": (OmaConfig(1, "production", OMA, is_active=True),),
    }
    return VmRecords(**{**values, **changes})


def changed_records(evidence: Evidence, **changes: Any) -> Evidence:
    return replace(evidence, records=replace(evidence.records, **changes))


def volume_row(number: int, **changes: Any) -> VolumeRecord:
    row = VolumeRecord(
        number + 1,
        "ctx-1",
        volume_id(number),
        f"disk-{number}",
        1,
        1,
        "detached",
        snapshot_id=snapshot_id(number),
        snapshot_status="ready",
        snapshot_created_at=SNAPSHOT_AT,
    )
    return replace(row, **changes)


def disk_row(number: int, **changes: Any) -> DiskRecord:
    return replace(DiskRecord(number + 1, "ctx-1", f"disk-{2000 + number}", number + 1, number, 1, GIB), **changes)


def mapping_row(number: int, **changes: Any) -> MappingRecord:
    row = MappingRecord(volume_id(number), TEST_VM, "failover", f"remote-vm-{number}", snapshot_id(number), "ready")
    return replace(row, **changes)


def failover(**changes: Any) -> FailoverRecord:
    row = FailoverRecord(1, "ctx-1", FAILOVER, "test", "pending", destination_vm_id=TEST_VM, created_at=FAILED_OVER_AT)
    return replace(row, **changes)


def joblog(**changes: Any) -> JobLogRecord:
    row = JobLogRecord(
        FAILOVER,
        "running",
        "failover",
        "test-failover",
        step_names=("virtio-driver-injection", "vm-creation", "volume-attachment"),
        last_activity_at=NOW - timedelta(minutes=90),
    )
    return replace(row, **changes)


def replication(**changes: Any) -> ReplicationRecord:
    row = ReplicationRecord(
        "repl-1", "completed", "change-1", REPLICATED_AT - timedelta(hours=1), REPLICATED_AT, REPLICATED_AT
    )
    return replace(row, **changes)


def cloud_volume(number: int, **changes: Any) -> CloudVolume:
    row = CloudVolume(
        volume_id(number),
        f"disk-{number}",
        "Ready",
        GIB,
        type="ROOT" if number == 0 else "DATADISK",
        vm_id=TEST_VM,
        vm_name="pgtest1-test",
        vm_state="Stopped",
        device_id=number,
    )
    return replace(row, **changes)


def on_test_vm(number: int, **changes: Any) -> VolumeFacts:
    mapping = Mapping(volume_id(number), TEST_VM, f"remote-vm-{number}", "failover")
    return VolumeFacts(volume_id(number), cloud_volume(number, **changes), mapping, on_oma=False)


def detached(number: int, *, on_oma: bool = False) -> VolumeFacts:
    free = cloud_volume(number, type="DATADISK", vm_id=None, vm_name=None, vm_state=None, device_id=None)
    return VolumeFacts(volume_id(number), free, None, on_oma=on_oma)


def at_home(
    number: int, mode: str = "oma", *, on_oma: bool = True, holders: DeviceHolders | Unanswered | None = None
) -> VolumeFacts:
    """Nobody holds its device unless `holders` says so."""
    cloud = cloud_volume(number, type="DATADISK", vm_id=OMA, vm_name="oma", vm_state="Running", device_id=number + 1)
    mapping = Mapping(volume_id(number), OMA, f"/dev/disk/by-id/virtio-{serial_of(volume_id(number))}", mode)
    held = holders or (held_by(number) if on_oma else None)
    return VolumeFacts(volume_id(number), cloud, mapping, on_oma=on_oma, holders=held)


def held_by(number: int, *holders: DeviceHolder, unread: tuple[str, ...] = ()) -> DeviceHolders:
    return DeviceHolders(volume_id(number), not unread, holders, unread, NOW)


def injection(pid: int = 4711, *, root: int = 4700, start_ticks: int = 100) -> DeviceHolder:
    """A process of a hung driver injection that the Volume Daemon would end."""
    return DeviceHolder(
        "process",
        "virt-v2v-in-place",
        process=ProcessId(pid, start_ticks),
        command="virt-v2v-in-place -i disk",
        since=FAILED_OVER_AT,
        role=INJECTION,
        tree=ProcessId(root, 90),
        endable=True,
    )


def unknown_process(pid: int = 666, role: str = "unknown") -> DeviceHolder:
    return DeviceHolder("process", "dd", ProcessId(pid, 100), "dd of=/dev/vdb", since=FAILED_OVER_AT, role=role)


def tracked(number: int, **changes: Any) -> SnapshotFacts:
    listed = changes["cloud"] if "cloud" in changes else snapshot(number, **changes)
    return SnapshotFacts(volume_id(number), snapshot_id(number), ("ossea_volumes", "device_mappings"), listed)


def snapshot(number: int, **changes: Any) -> CloudSnapshot:
    row = CloudSnapshot(
        snapshot_id(number), volume_id(number), f"test-failover-{number}", "BackedUp", SNAPSHOT_AT, GIB, revertable=True
    )
    return replace(row, **changes)


def scan(*numbers: int, product_uuid: str | None = OMA) -> DeviceScan:
    links = tuple(DeviceLink(f"virtio-{number}", serial_of(volume_id(number))) for number in numbers)
    return DeviceScan(product_uuid, None if product_uuid else "permission denied", NOW, links)


def nothing_left(**changes: Any) -> Evidence:
    """Everything is home, nothing tracked, the failover ended: there is nothing to clean."""
    quiet = records(
        context=VmContext("ctx-1", "pgtest1", "vc-1", "ready_for_failover", "repl-1", 1),
        volumes=tuple(volume_row(number, snapshot_id=None) for number in range(2)),
        mappings=tuple(mapping_row(number, operation_mode="oma", ossea_snapshot_id=None) for number in range(2)),
        failovers=(failover(status="failed", completed_at=NOW - timedelta(hours=1)),),
        joblog=(joblog(status="failed", step_names=()),),
    )
    values: dict[str, Any] = {
        "records": quiet,
        "volumes": (at_home(0), at_home(1)),
        "snapshots": (),
        "devices": scan(0, 1),
        "vms": (CloudVm(OMA, "oma", "Running"),),
    }
    return build(**{**values, **changes})
