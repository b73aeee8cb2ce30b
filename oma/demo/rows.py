"""The rows that a replication and a failover leave in the database of an installation. Functions of a connection."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Table, insert, select
from sqlalchemy.engine import Connection

from database.tables import (
    device_mappings,
    failover_jobs,
    job_steps,
    job_tracking,
    log_events,
    nbd_exports,
    ossea_configs,
    ossea_volumes,
    vm_disks,
    vm_replication_contexts,
)
from oma.demo.replications import insert_replications
from oma.demo.story import MIB, Disk, Export, Place, SeededVm, Tracking, uid

GIB: Final = 1024 * MIB


def insert_vm(connection: Connection, vm: SeededVm, oma_vm_id: str, device_root: Path, nbd_dir: Path) -> None:
    """Everything about one VM. The configuration that its story names must be there."""
    config_id = None
    if vm.story.config is not None:
        query = select(ossea_configs.c.id).where(ossea_configs.c.name == vm.story.config)
        config_id = connection.execute(query).scalar_one()
    insert_replications(connection, vm)
    _insert(
        connection,
        vm_replication_contexts,
        context_id=vm.context_id,
        vm_name=vm.name,
        vmware_vm_id=uid("vmware", vm.context_id),
        vm_path=f"/dc-1/vm/{vm.name}",
        vcenter_host=vm.story.vcenter,
        datacenter="dc-1",
        current_status=vm.story.context_status,
        current_job_id=vm.replication_id,
        total_jobs_run=1,
        successful_jobs=1,
        last_successful_job_id=vm.replication_id,
        cpu_count=4,
        memory_mb=8192,
        os_type="windows",
        power_state="poweredOn",
        ossea_config_id=config_id,
        last_status_change=vm.begun_at,
    )
    _insert_failover(connection, vm)
    for disk in vm.disks:
        _insert_disk(connection, vm, disk, config_id)
        mapping = mapping_of(vm, disk, oma_vm_id, device_root)
        if mapping is not None:
            _insert(connection, device_mappings, **mapping)
        if disk.story.export is not None:
            _insert_export(connection, vm, disk, device_root, nbd_dir)
    if vm.story.claimed_by is not None:
        _insert_claim(connection, vm, config_id)


def mapping_of(vm: SeededVm, disk: Disk, oma_vm_id: str, device_root: Path) -> dict[str, Any] | None:
    """The Volume Daemon's row; None where the volume hangs nowhere."""
    place = disk.story.place
    if place is Place.NOWHERE and not disk.story.stale_mapping:
        return None
    home = place is Place.OMA
    vm_id = oma_vm_id if home else vm.foreign_vm_id if place is Place.FOREIGN_VM else vm.test_vm_id
    tracked = disk.tracked_in(Tracking.MAPPINGS)
    return {
        "id": uid("mapping", disk.volume_id),
        "volume_uuid": disk.volume_id,
        "volume_id": disk.volume_id,
        "vm_id": vm_id,
        "vm_context_id": vm.context_id,
        "operation_mode": "oma" if home else "failover",
        "device_path": str(device_root / disk.link) if home else f"remote-vm-{vm_id}-{disk.number}",
        "cloudstack_device_id": disk.number,
        "cloudstack_state": "attached",
        "linux_state": "detected" if home else "n/a",
        "size": disk.story.size_bytes,
        "ossea_snapshot_id": tracked,
        "snapshot_status": "ready" if tracked else "none",
    }


def export_file(export: Export, nbd_dir: Path) -> Path:
    return nbd_dir / (export.file or f"{export.name}.conf")


def export_text(export: Export, device_path: Path) -> str:
    """The file as the existing daemon wrote it, and what somebody added."""
    lines = [
        f"[{export.name}]",
        f"exportname = {device_path}",
        "readonly = false",
        "multifile = false",
        "copyonwrite = false",
    ]
    return "\n".join([*lines, *([export.extra] if export.extra else []), ""])


def _insert_failover(connection: Connection, vm: SeededVm) -> None:
    story = vm.story
    _insert(
        connection,
        failover_jobs,
        vm_context_id=vm.context_id,
        job_id=vm.failover_id,
        vm_id=uid("vmware", vm.context_id),
        replication_job_id=vm.replication_id,
        job_type=story.job_type,
        status=story.failover_status,
        source_vm_name=vm.name,
        destination_vm_id=vm.test_vm_id if story.test_vm and story.recorded else None,
        ossea_snapshot_id=next((one for disk in vm.disks if (one := disk.tracked_in(Tracking.FAILOVER))), None),
        created_at=vm.begun_at,
        updated_at=vm.begun_at,
        started_at=vm.begun_at,
        completed_at=vm.last_sign_at if story.failover_status == "completed" else None,
    )
    _insert(
        connection,
        job_tracking,
        id=vm.failover_id,
        job_type="failover",
        operation=f"{story.job_type}-failover",
        status=story.joblog_status,
        context_id=vm.context_id,
        job_category="failover",
        owner="system",
        started_at=vm.begun_at,
        completed_at=vm.last_sign_at if story.joblog_status != "running" else None,
        created_at=vm.begun_at,
        updated_at=vm.last_sign_at,
    )
    for seq, (name, status) in enumerate(story.steps, start=1):
        at = vm.begun_at + timedelta(minutes=2 * (seq - 1))
        _insert(
            connection,
            job_steps,
            job_id=vm.failover_id,
            name=name,
            seq=seq,
            status=status,
            started_at=at,
            completed_at=None if status == "running" else at + timedelta(seconds=100),
        )
    _insert(
        connection,
        log_events,
        job_id=vm.failover_id,
        level="INFO",
        message=f"last words of the {story.job_type} failover of {vm.name}",
        attrs={},
        ts=vm.last_sign_at,
    )


def _insert_disk(connection: Connection, vm: SeededVm, disk: Disk, config_id: int | None) -> None:
    volume_row_id = None
    if disk.number < len(vm.disks) - vm.story.rows_missing:
        volume_row_id = _insert_volume(connection, vm, disk, config_id)
    _insert(
        connection,
        vm_disks,
        vm_context_id=vm.context_id,
        job_id=vm.replication_id,
        disk_id=disk.disk_id,
        size_gb=max(1, disk.story.size_bytes // GIB),
        unit_number=disk.number,
        capacity_bytes=disk.story.size_bytes,
        ossea_volume_id=volume_row_id,
        disk_change_id=vm.change_id(disk),
        sync_status="completed",
        bytes_synced=disk.story.size_bytes,
        created_at=vm.replicated_at,
        updated_at=vm.replicated_at,
    )


def _insert_volume(connection: Connection, vm: SeededVm, disk: Disk, config_id: int | None) -> int:
    tracked = disk.tracked_in(Tracking.VOLUMES)
    done = connection.execute(
        insert(ossea_volumes).values(
            vm_context_id=vm.context_id,
            volume_id=disk.volume_id,
            volume_name=disk.name,
            size_gb=max(1, disk.story.size_bytes // GIB),
            ossea_config_id=config_id,
            volume_type="DATADISK",
            status="attached" if disk.story.place is Place.OMA else "detached",
            snapshot_id=tracked,
            snapshot_status="ready" if tracked else "none",
            snapshot_created_at=vm.begun_at + timedelta(seconds=90) if tracked else None,
        )
    )
    (row_id,) = done.inserted_primary_key or (None,)
    if row_id is None:
        raise RuntimeError("the database gave the new row no number")
    return int(row_id)


def _insert_claim(connection: Connection, vm: SeededVm, config_id: int | None) -> None:
    """Another VM's records name this one's first volume as theirs."""
    first = vm.disks[0]
    _insert(
        connection,
        ossea_volumes,
        vm_context_id=f"ctx-{uid('context', vm.story.vcenter, vm.story.claimed_by)}",
        volume_id=first.volume_id,
        volume_name=first.name,
        size_gb=1,
        ossea_config_id=config_id,
        volume_type="DATADISK",
        status="detached",
    )


def _insert_export(connection: Connection, vm: SeededVm, disk: Disk, device_root: Path, nbd_dir: Path) -> None:
    export = disk.story.export
    if export is None:
        return
    _insert(
        connection,
        nbd_exports,
        vm_context_id=vm.context_id,
        job_id=vm.replication_id,
        volume_id=disk.volume_id,
        device_mapping_uuid=disk.volume_id,
        export_name=export.name,
        device_path=str(device_root / disk.link),
        port=export.port,
        config_path=str(export_file(export, nbd_dir)),
        status="active",
    )


def _insert(connection: Connection, table: Table, **values: Any) -> None:
    connection.execute(insert(table).values(**values))
