"""`device_mappings` and `nbd_exports`: where a volume is, and under which name it is exported.

Functions of a connection. An export's row hangs on its mapping (ON DELETE CASCADE), so both are always written in one
transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection, Row
from sqlalchemy.schema import Column
from sqlalchemy.sql import ColumnElement

from database.tables import (
    device_mappings,
    nbd_exports,
    ossea_volumes,
    replication_jobs,
    vm_disks,
    vm_replication_contexts,
)
from volume_daemon.server import queries
from volume_daemon.server.journal import find_recorded
from volume_daemon.server.queries import EXPORT, MAPPING
from volume_daemon.server.records import MappingRow, RecordedExport, VolumeRecords
from volume_daemon.server.shape import Shape


@dataclass(frozen=True, slots=True)
class Placed:
    """A mapping with its exports, to be written with an operation's end."""

    mapping: MappingRow
    exports: tuple[RecordedExport, ...] = ()


@dataclass(frozen=True, slots=True)
class Removed:
    """The mapping and its exports go."""


@dataclass(frozen=True, slots=True)
class Doubtful:
    """The mapping stays, with what is known."""

    cloudstack_state: str
    linux_state: str


MappingChange = Placed | Removed | Doubtful | None


class PathTaken(Exception):
    """Another volume's mapping holds this device path, which is unique."""


class ExportNameTaken(Exception):
    """Another volume's export holds this name, which is unique."""


def read_volume(connection: Connection, shape: Shape, volume_id: str) -> VolumeRecords:
    """Everything that deciding about one volume needs."""
    mapping = find_mapping(connection, shape, volume_id)
    recorded, tracking = find_recorded(connection, volume_id)
    return VolumeRecords(
        volume_id=volume_id,
        oma_vm_ids=read_oma_vm_ids_of(connection, [volume_id])[volume_id],
        mapping=mapping,
        exports=list_exports(connection, shape, volume_id),
        context_id=_context_of(connection, volume_id),
        vm_disk_id=_disk_of(connection, volume_id),
        recorded=recorded,
        tracking=mapping.tracking if mapping else tracking,
    )


def read_oma_vm_ids_of(connection: Connection, volume_ids: Sequence[str]) -> dict[str, frozenset[str]]:
    """Which VM is the OMA, for each volume, in lower case: several, or none, where that cannot be told.

    It is that of the configuration that the volume's row names, active or not, else of the active ones.
    """
    configs = {row.id: row for row in connection.execute(queries.CONFIGS)}
    active = frozenset(id_ for id_, row in configs.items() if row.is_active)
    named: dict[str, set[int]] = {}
    for volume_id, config_id in connection.execute(queries.NAMED_CONFIGS, {"volumes": list(volume_ids)}):
        # Some collations find a row of another case.
        named.setdefault(volume_id.lower(), set()).update(active if config_id is None else {config_id})
    return {
        volume_id: frozenset(
            vm_id
            for config_id in named.get(volume_id.lower(), active)
            if config_id in configs and (vm_id := _vm_id(configs[config_id].oma_vm_id))
        )
        for volume_id in volume_ids
    }


def read_all_oma_vm_ids(connection: Connection) -> frozenset[str]:
    """Every VM that may be the OMA of some volume: of active configurations and of those that rows name."""
    named = set(connection.execute(select(ossea_volumes.c.ossea_config_id).distinct()).scalars())
    rows = connection.execute(queries.CONFIGS).all()
    return frozenset(vm_id for row in rows if (row.is_active or row.id in named) and (vm_id := _vm_id(row.oma_vm_id)))


def _vm_id(value: str | None) -> str:
    return str(value or "").strip().lower()


def find_mapping(connection: Connection, shape: Shape, volume_id: str) -> MappingRow | None:
    row = connection.execute(queries.select_mapping(shape.mapping_columns), {"volume": volume_id}).first()
    return None if row is None else _mapping(row)


def list_mappings(connection: Connection, shape: Shape, where: ColumnElement[bool]) -> list[MappingRow]:
    return [_mapping(row) for row in connection.execute(queries.select_mappings(shape.mapping_columns).where(where))]


def list_mappings_of(connection: Connection, shape: Shape, volume_ids: Sequence[str]) -> dict[str, MappingRow]:
    rows = list_mappings(connection, shape, MAPPING.volume_uuid.in_(volume_ids))
    return {row.volume_uuid: row for row in rows}


def list_mappings_at(connection: Connection, shape: Shape, paths: Sequence[str]) -> list[MappingRow]:
    return list_mappings(connection, shape, MAPPING.device_path.in_(paths))


def list_exports(connection: Connection, shape: Shape, volume_id: str) -> tuple[RecordedExport, ...]:
    """The volume's exports, without their files' text."""
    rows = connection.execute(queries.select_exports(shape.export_columns), {"volume": volume_id})
    return tuple(_export(row) for row in rows)


def save_mapping(
    connection: Connection,
    shape: Shape,
    mapping: MappingRow,
    exports: Sequence[RecordedExport],
    now: datetime,
) -> None:
    """Writes the mapping and exactly these exports. Raises `PathTaken` or `ExportNameTaken`."""
    which = {"volume": mapping.volume_uuid}
    taken_by = connection.execute(queries.OTHERS_AT_PATH, {"path": mapping.device_path, **which}).scalar()
    if taken_by is not None:
        raise PathTaken(f"{mapping.device_path} stands in the mapping of volume {taken_by}")
    values = shape.mapping_values(_mapping_values(connection, mapping, now))
    there = connection.execute(queries.MAPPING_ID, which).first()
    if there is None:
        connection.execute(insert(device_mappings), {"id": mapping.id, "created_at": now, **values})
    else:
        connection.execute(queries.CHANGE_MAPPING, {**which, **values})
    connection.execute(queries.REMOVE_OTHER_EXPORTS, {**which, "kept": [export.name for export in exports]})
    for export in exports:
        _save_export(connection, shape, mapping.volume_uuid, export, now)


def check_export_names(connection: Connection, volume_id: str, names: Sequence[str]) -> None:
    """Before anything is written to nbd-server. Raises `ExportNameTaken`."""
    for name in names:
        found = connection.execute(queries.NAMED_EXPORT, {"name": name}).first()
        if found is not None and volume_id not in (found.volume_id, found.device_mapping_uuid):
            raise ExportNameTaken(f"the export {name} belongs to volume {found.volume_id}")


def set_mapping_states(
    connection: Connection, volume_id: str, cloudstack_state: str, linux_state: str, now: datetime
) -> None:
    """What is known of a mapping that may not go yet."""
    known = {"cloudstack_state": cloudstack_state, "linux_state": linux_state, "last_sync": now, "updated_at": now}
    connection.execute(queries.CHANGE_MAPPING, {"volume": volume_id, **known})


def remove_mapping(connection: Connection, volume_id: str) -> None:
    """Mapping and exports; the latter by name too, for rows that no mapping holds."""
    connection.execute(queries.REMOVE_EXPORTS, {"volume": volume_id})
    connection.execute(queries.REMOVE_MAPPING, {"volume": volume_id})


def _save_export(connection: Connection, shape: Shape, volume_id: str, export: RecordedExport, now: datetime) -> None:
    check_export_names(connection, volume_id, [export.name])
    found = connection.execute(queries.NAMED_EXPORT, {"name": export.name}).first()
    values = shape.export_values(
        {
            "volume_id": volume_id,
            "device_mapping_uuid": volume_id,
            "vm_context_id": _existing(connection, vm_replication_contexts.c.context_id, export.vm_context_id),
            "job_id": _existing(connection, replication_jobs.c.id, export.job_id),
            "vm_disk_id": _existing(connection, vm_disks.c.id, export.vm_disk_id),
            "device_path": export.device_path,
            "port": export.port,
            "config_path": export.config_path or "",
            "status": export.status,
            "updated_at": now,
        }
    )
    if found is not None:
        connection.execute(update(nbd_exports).where(EXPORT.export_name == export.name).values(**values))
        return
    if not shape.export_id_is_number:
        # An older generation: the id is text, and the name is unique as well.
        values["id"] = export.name[-64:]
    connection.execute(insert(nbd_exports).values(export_name=export.name, created_at=now, **values))


def _existing(connection: Connection, column: Column[Any], value: Any) -> Any:
    """The value where its row is still there: existing installations have foreign keys on these."""
    if value is None:
        return None
    return connection.execute(queries.select_existing(column), {"value": value}).scalar()


def _context_of(connection: Connection, volume_id: str) -> str | None:
    found = connection.execute(queries.CONTEXT_OF, {"volume": volume_id}).scalar()
    return str(found) if found else None


def _disk_of(connection: Connection, volume_id: str) -> int | None:
    """The one row of `vm_disks` that names the volume; None where there are several."""
    found = connection.execute(queries.DISKS_OF, {"volume": volume_id}).scalars().all()
    return int(found[0]) if len(found) == 1 else None


def _mapping_values(connection: Connection, mapping: MappingRow, now: datetime) -> dict[str, Any]:
    return {
        "volume_uuid": mapping.volume_uuid,
        "volume_id": mapping.volume_uuid,
        "vm_id": mapping.vm_id,
        "vm_context_id": _existing(connection, vm_replication_contexts.c.context_id, mapping.vm_context_id),
        "operation_mode": mapping.operation_mode,
        "device_path": mapping.device_path,
        "cloudstack_device_id": mapping.cloudstack_device_id,
        "cloudstack_state": mapping.cloudstack_state,
        "linux_state": mapping.linux_state,
        "size": mapping.size,
        "ossea_snapshot_id": mapping.snapshot_id,
        "snapshot_status": mapping.snapshot_status or "none",
        "snapshot_created_at": mapping.snapshot_created_at,
        "last_sync": now,
        "updated_at": now,
    }


def _mapping(row: Row[Any]) -> MappingRow:
    found = row._mapping  # noqa: SLF001 - SQLAlchemy's public accessor
    return MappingRow(
        id=str(found["id"]),
        volume_uuid=found["volume_uuid"],
        vm_id=found["vm_id"] or "",
        vm_context_id=found.get("vm_context_id"),
        operation_mode=found.get("operation_mode") or "oma",
        device_path=found["device_path"],
        cloudstack_device_id=found.get("cloudstack_device_id"),
        cloudstack_state=found.get("cloudstack_state") or "",
        linux_state=found.get("linux_state") or "",
        size=found.get("size") or 0,
        last_sync=found.get("last_sync"),
        snapshot_id=found.get("ossea_snapshot_id") or None,
        snapshot_status=found.get("snapshot_status"),
        snapshot_created_at=found.get("snapshot_created_at"),
    )


def _export(row: Row[Any]) -> RecordedExport:
    found = row._mapping  # noqa: SLF001 - SQLAlchemy's public accessor
    return RecordedExport(
        name=found["export_name"],
        port=int(found["port"]),
        device_path=found.get("device_path") or "",
        config_path=found.get("config_path") or None,
        status=found.get("status") or "active",
        text=None,
        vm_context_id=found.get("vm_context_id"),
        job_id=found.get("job_id"),
        vm_disk_id=found.get("vm_disk_id"),
    )
