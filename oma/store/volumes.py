"""`ossea_volumes`, `vm_disks` and `device_mappings`: what is recorded about a VM's disks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import and_, func, inspect, select, update
from sqlalchemy.engine import Connection

from database.tables import device_mappings, ossea_volumes, vm_disks
from oma.domain.records import DiskRecord, MappingRecord, VolumeRecord
from oma.store.batches import rows_for


def list_volumes(connection: Connection, context_ids: Iterable[str]) -> list[VolumeRecord]:
    table = ossea_volumes.c
    query = select(
        table.id,
        table.vm_context_id,
        table.volume_id,
        table.volume_name,
        table.size_gb,
        table.ossea_config_id,
        table.status,
        table.device_path,
        table.snapshot_id,
        table.snapshot_status,
        table.snapshot_created_at,
    ).order_by(table.id)
    return [
        VolumeRecord(
            id=row["id"],
            context_id=row["vm_context_id"],
            volume_id=row["volume_id"],
            volume_name=row["volume_name"] or "",
            size_gb=row["size_gb"] or 0,
            ossea_config_id=row["ossea_config_id"],
            status=row["status"] or "",
            device_path=row["device_path"],
            snapshot_id=row["snapshot_id"] or None,
            snapshot_status=row["snapshot_status"],
            snapshot_created_at=row["snapshot_created_at"],
        )
        for row in rows_for(connection, query, table.vm_context_id, context_ids)
    ]


def list_disks(connection: Connection, context_ids: Iterable[str]) -> list[DiskRecord]:
    table = vm_disks.c
    query = select(
        table.id,
        table.vm_context_id,
        table.disk_id,
        table.ossea_volume_id,
        table.unit_number,
        table.size_gb,
        table.capacity_bytes,
        table.disk_change_id,
        table.updated_at,
    ).order_by(table.id)
    return [
        DiskRecord(
            id=row["id"],
            context_id=row["vm_context_id"],
            disk_id=row["disk_id"],
            ossea_volume_id=row["ossea_volume_id"],
            unit_number=row["unit_number"],
            size_gb=row["size_gb"],
            capacity_bytes=row["capacity_bytes"],
            disk_change_id=row["disk_change_id"] or None,
            updated_at=row["updated_at"],
        )
        for row in rows_for(connection, query, table.vm_context_id, context_ids)
    ]


def list_mappings(connection: Connection, volume_ids: Iterable[str]) -> list[MappingRecord]:
    table = device_mappings.c
    query = select(
        table.volume_uuid,
        table.vm_id,
        table.operation_mode,
        table.device_path,
        table.ossea_snapshot_id,
        table.snapshot_status,
    ).order_by(table.volume_uuid)
    return [
        MappingRecord(
            volume_uuid=row["volume_uuid"],
            vm_id=row["vm_id"] or None,
            operation_mode=row["operation_mode"] or "",
            device_path=row["device_path"],
            ossea_snapshot_id=row["ossea_snapshot_id"] or None,
            snapshot_status=row["snapshot_status"],
        )
        for row in rows_for(connection, query, table.volume_uuid, volume_ids)
    ]


def find_claimed_twice(connection: Connection, volumes: Sequence[VolumeRecord]) -> frozenset[str]:
    """Those volumes that another context claims too, by a row of `ossea_volumes` or a disk that refers to theirs."""
    owners = {(volume.volume_id, volume.context_id) for volume in volumes}
    claims = set(owners)
    query = select(ossea_volumes.c.volume_id, ossea_volumes.c.vm_context_id)
    for row in rows_for(connection, query, ossea_volumes.c.volume_id, (volume.volume_id for volume in volumes)):
        claims.add((row["volume_id"], row["vm_context_id"]))
    by_row_id = {volume.id: volume for volume in volumes}
    disks = select(vm_disks.c.ossea_volume_id, vm_disks.c.vm_context_id)
    for row in rows_for(connection, disks, vm_disks.c.ossea_volume_id, by_row_id):
        claims.add((by_row_id[row["ossea_volume_id"]].volume_id, row["vm_context_id"]))
    claimants: dict[str, set[str]] = {}
    for volume_id, context_id in claims:
        if context_id:
            claimants.setdefault(volume_id, set()).add(context_id)
    return frozenset(volume_id for volume_id, contexts in claimants.items() if len(contexts) > 1)


def list_known_ids(connection: Connection, volume_ids: Sequence[str]) -> list[str]:
    """Those of the ids that any row knows, in whatever case. A disk knows a volume only by a row of `ossea_volumes`."""
    known: set[str] = set()
    wanted = {volume_id.lower() for volume_id in volume_ids}
    for column in (ossea_volumes.c.volume_id, device_mappings.c.volume_uuid):
        known |= {row[column.name].lower() for row in rows_for(connection, select(column), func.lower(column), wanted)}
    return [volume_id for volume_id in volume_ids if volume_id.lower() in known]


def mark_attached(connection: Connection, context_id: str, volume_ids: Sequence[str], at: datetime) -> None:
    if volume_ids:
        connection.execute(
            update(ossea_volumes)
            .where(and_(ossea_volumes.c.vm_context_id == context_id, ossea_volumes.c.volume_id.in_(volume_ids)))
            .values(status="attached", updated_at=at)
        )


def clear_tracking(
    connection: Connection, context_id: str, volume_ids: Sequence[str], at: datetime
) -> dict[str, list[str]]:
    """Empties what the volumes' rows and mappings say about snapshots; returns the ids that stood there, by volume."""
    if not volume_ids:
        return {}
    ours = and_(ossea_volumes.c.vm_context_id == context_id, ossea_volumes.c.volume_id.in_(volume_ids))
    mapped = device_mappings.c.volume_uuid.in_(volume_ids)
    former: dict[str, list[str]] = {}
    tracked = (
        (select(ossea_volumes.c.volume_id, ossea_volumes.c.snapshot_id).where(ours)),
        (select(device_mappings.c.volume_uuid, device_mappings.c.ossea_snapshot_id).where(mapped)),
    )
    for query in tracked:
        for volume_id, snapshot_id in connection.execute(query):
            if snapshot_id and snapshot_id not in former.setdefault(volume_id, []):
                former[volume_id].append(snapshot_id)
    connection.execute(
        update(ossea_volumes)
        .where(ours)
        .values(snapshot_id="", snapshot_status="none", snapshot_created_at=None, updated_at=at)
    )
    # Some generations of existing installations keep the time in the mapping too.
    has_time = any(
        column["name"] == "snapshot_created_at" for column in inspect(connection).get_columns("device_mappings")
    )
    dated: dict[str, None] = {"snapshot_created_at": None} if has_time else {}
    connection.execute(
        update(device_mappings).where(mapped).values(ossea_snapshot_id="", snapshot_status="none", **dated)
    )
    return former
