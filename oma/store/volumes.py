"""`ossea_volumes`, `vm_disks` and `device_mappings`: what is recorded about a VM's disks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, and_, bindparam, func, inspect, select, update
from sqlalchemy.engine import Connection

from database.tables import device_mappings, ossea_volumes, vm_disks
from oma.domain.records import DiskRecord, MappingRecord, VolumeRecord
from oma.store.batches import IDS, rows_for

VOLUME, DISK, MAPPING = ossea_volumes.c, vm_disks.c, device_mappings.c

_VOLUMES: Final = (
    select(
        VOLUME.id,
        VOLUME.vm_context_id,
        VOLUME.volume_id,
        VOLUME.volume_name,
        VOLUME.size_gb,
        VOLUME.ossea_config_id,
        VOLUME.status,
        VOLUME.device_path,
        VOLUME.snapshot_id,
        VOLUME.snapshot_status,
        VOLUME.snapshot_created_at,
    )
    .where(VOLUME.vm_context_id.in_(IDS))
    .order_by(VOLUME.id)
)
_DISKS: Final = (
    select(
        DISK.id,
        DISK.vm_context_id,
        DISK.disk_id,
        DISK.ossea_volume_id,
        DISK.unit_number,
        DISK.size_gb,
        DISK.capacity_bytes,
        DISK.disk_change_id,
        DISK.updated_at,
    )
    .where(DISK.vm_context_id.in_(IDS))
    .order_by(DISK.id)
)
_MAPPINGS: Final = (
    select(
        MAPPING.volume_uuid,
        MAPPING.vm_id,
        MAPPING.operation_mode,
        MAPPING.device_path,
        MAPPING.ossea_snapshot_id,
        MAPPING.snapshot_status,
    )
    .where(MAPPING.volume_uuid.in_(IDS))
    .order_by(MAPPING.volume_uuid)
)
_CLAIMS_BY_ROW: Final = select(VOLUME.volume_id, VOLUME.vm_context_id).where(VOLUME.volume_id.in_(IDS))
_CLAIMS_BY_DISK: Final = select(DISK.ossea_volume_id, DISK.vm_context_id).where(DISK.ossea_volume_id.in_(IDS))
_KNOWN: Final[tuple[Select[Any], ...]] = tuple(
    select(column.label("volume_id")).where(func.lower(column).in_(IDS))
    for column in (VOLUME.volume_id, MAPPING.volume_uuid)
)
_OURS: Final = and_(VOLUME.vm_context_id == bindparam("context"), VOLUME.volume_id.in_(IDS))
_TRACKED: Final[tuple[Select[Any], ...]] = (
    select(VOLUME.volume_id, VOLUME.snapshot_id).where(_OURS),
    select(MAPPING.volume_uuid, MAPPING.ossea_snapshot_id).where(MAPPING.volume_uuid.in_(IDS)),
)
_CHANGE_VOLUMES: Final = update(ossea_volumes).where(_OURS)
_UNTRACKED: Final = {"snapshot_status": "none", "snapshot_created_at": None}
_CHANGE_MAPPINGS: Final = update(device_mappings).where(MAPPING.volume_uuid.in_(IDS))


def list_volumes(connection: Connection, context_ids: Iterable[str]) -> list[VolumeRecord]:
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
        for row in rows_for(connection, _VOLUMES, context_ids)
    ]


def list_disks(connection: Connection, context_ids: Iterable[str]) -> list[DiskRecord]:
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
        for row in rows_for(connection, _DISKS, context_ids)
    ]


def list_mappings(connection: Connection, volume_ids: Iterable[str]) -> list[MappingRecord]:
    return [
        MappingRecord(
            volume_uuid=row["volume_uuid"],
            vm_id=row["vm_id"] or None,
            operation_mode=row["operation_mode"] or "",
            device_path=row["device_path"],
            ossea_snapshot_id=row["ossea_snapshot_id"] or None,
            snapshot_status=row["snapshot_status"],
        )
        for row in rows_for(connection, _MAPPINGS, volume_ids)
    ]


def find_claimed_twice(connection: Connection, volumes: Sequence[VolumeRecord]) -> frozenset[str]:
    """Those volumes that another context claims too, by a row of `ossea_volumes` or a disk that refers to theirs."""
    owners = {(volume.volume_id, volume.context_id) for volume in volumes}
    claims = set(owners)
    for row in rows_for(connection, _CLAIMS_BY_ROW, (volume.volume_id for volume in volumes)):
        claims.add((row["volume_id"], row["vm_context_id"]))
    by_row_id = {volume.id: volume for volume in volumes}
    for row in rows_for(connection, _CLAIMS_BY_DISK, by_row_id):
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
    for query in _KNOWN:
        known |= {row["volume_id"].lower() for row in rows_for(connection, query, wanted)}
    return [volume_id for volume_id in volume_ids if volume_id.lower() in known]


def mark_attached(connection: Connection, context_id: str, volume_ids: Sequence[str], at: datetime) -> None:
    if volume_ids:
        which = {"context": context_id, "ids": list(volume_ids)}
        connection.execute(_CHANGE_VOLUMES, {**which, "status": "attached", "updated_at": at})


def clear_tracking(
    connection: Connection, context_id: str, volume_ids: Sequence[str], at: datetime
) -> dict[str, list[str]]:
    """Empties what the volumes' rows and mappings say about snapshots; returns the ids that stood there, by volume."""
    if not volume_ids:
        return {}
    mapped: dict[str, Any] = {"ids": list(volume_ids)}
    ours: dict[str, Any] = {"context": context_id, **mapped}
    former: dict[str, list[str]] = {}
    for query, which in zip(_TRACKED, (ours, mapped), strict=True):
        for volume_id, snapshot_id in connection.execute(query, which):
            if snapshot_id and snapshot_id not in former.setdefault(volume_id, []):
                former[volume_id].append(snapshot_id)
    connection.execute(_CHANGE_VOLUMES, {**ours, **_UNTRACKED, "snapshot_id": "", "updated_at": at})
    clear_mappings(connection, volume_ids)
    return former


def clear_mappings(connection: Connection, volume_ids: Sequence[str]) -> None:
    """What the mappings alone say of snapshots; a volume that is attached nowhere has none."""
    # Some generations of existing installations keep the time in the mapping too.
    has_time = any(
        column["name"] == "snapshot_created_at" for column in inspect(connection).get_columns("device_mappings")
    )
    empty = {name: value for name, value in _UNTRACKED.items() if has_time or name != "snapshot_created_at"}
    connection.execute(_CHANGE_MAPPINGS, {"ids": list(volume_ids), **empty, "ossea_snapshot_id": ""})
