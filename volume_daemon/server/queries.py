"""The statements of `journal` and `mappings`, built once: every operation asks them several times."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from sqlalchemy import Select, bindparam, delete, insert, or_, select, update
from sqlalchemy.schema import Column

from database.tables import (
    device_mappings,
    nbd_exports,
    ossea_configs,
    ossea_volumes,
    vm_disks,
    volume_daemon_fences,
    volume_daemon_operations,
    volume_operation_history,
    volume_operations,
)
from volume_daemon.server.shape import known_columns

PUBLIC, OWN = volume_operations.c, volume_daemon_operations.c
MAPPING, EXPORT = device_mappings.c, nbd_exports.c


def _query() -> Select[Any]:
    columns = [column for column in volume_daemon_operations.columns if column.name not in {"volume_id", "error"}]
    return select(
        *volume_operations.columns,
        *(column.label(f"own_{column.name}") for column in columns),
        OWN.error.label("own_error"),
    ).select_from(volume_operations.outerjoin(volume_daemon_operations, OWN.operation_id == PUBLIC.id))


ENTRIES: Final = _query()
FIND_ENTRY: Final = ENTRIES.where(PUBLIC.id == bindparam("operation"))
INSERT_PUBLIC: Final = insert(volume_operations)
INSERT_OWN: Final = insert(volume_daemon_operations)
INSERT_HISTORY: Final = insert(volume_operation_history)
CHANGE_PUBLIC: Final = update(volume_operations).where(PUBLIC.id == bindparam("operation"))
CHANGE_OWN: Final = update(volume_daemon_operations).where(
    OWN.operation_id == bindparam("operation"), OWN.stage.in_(bindparam("stages", expanding=True))
)
PUBLIC_STATUS: Final = select(PUBLIC.status).where(PUBLIC.id == bindparam("operation"))
HELD_FENCE: Final = select(OWN.fence).where(OWN.operation_id == bindparam("operation"))
SEEN_FENCE: Final = select(volume_daemon_fences.c.fence).where(volume_daemon_fences.c.volume_id == bindparam("volume"))
INSERT_FENCE: Final = insert(volume_daemon_fences)
RAISE_FENCE: Final = update(volume_daemon_fences).where(volume_daemon_fences.c.volume_id == bindparam("volume"))
DETACHED_EXPORTS: Final = (
    select(OWN.exports)
    .where(OWN.volume_id == bindparam("volume"), OWN.exports.is_not(None))
    .order_by(OWN.seq.desc())
    .limit(1)
)
DETACHED_TRACKING: Final = (
    select(OWN.tracking)
    .where(OWN.volume_id == bindparam("volume"), OWN.tracking.is_not(None))
    .order_by(OWN.seq.desc())
    .limit(1)
)

CONFIGS: Final = select(ossea_configs.c.id, ossea_configs.c.oma_vm_id, ossea_configs.c.is_active)
NAMED_CONFIGS: Final = select(ossea_volumes.c.volume_id, ossea_volumes.c.ossea_config_id).where(
    ossea_volumes.c.volume_id.in_(bindparam("volumes", expanding=True))
)
EXPORTS_OF: Final = or_(EXPORT.device_mapping_uuid == bindparam("volume"), EXPORT.volume_id == bindparam("volume"))
CONTEXT_OF: Final = (
    select(ossea_volumes.c.vm_context_id).where(ossea_volumes.c.volume_id == bindparam("volume")).limit(1)
)
DISKS_OF: Final = (
    select(vm_disks.c.id)
    .join(ossea_volumes, ossea_volumes.c.id == vm_disks.c.ossea_volume_id)
    .where(ossea_volumes.c.volume_id == bindparam("volume"))
    .limit(2)
)
OTHERS_AT_PATH: Final = select(MAPPING.volume_uuid).where(
    MAPPING.device_path == bindparam("path"), MAPPING.volume_uuid != bindparam("volume")
)
MAPPING_ID: Final = select(MAPPING.id).where(MAPPING.volume_uuid == bindparam("volume"))
CHANGE_MAPPING: Final = update(device_mappings).where(MAPPING.volume_uuid == bindparam("volume"))
REMOVE_MAPPING: Final = delete(device_mappings).where(MAPPING.volume_uuid == bindparam("volume"))
REMOVE_EXPORTS: Final = delete(nbd_exports).where(EXPORTS_OF)
REMOVE_OTHER_EXPORTS: Final = REMOVE_EXPORTS.where(EXPORT.export_name.not_in(bindparam("kept", expanding=True)))
NAMED_EXPORT: Final = select(EXPORT.volume_id, EXPORT.device_mapping_uuid).where(
    EXPORT.export_name == bindparam("name")
)


@cache
def select_mappings(columns: frozenset[str]) -> Select[Any]:
    return select(*known_columns(device_mappings, columns)).order_by(MAPPING.volume_uuid)


@cache
def select_mapping(columns: frozenset[str]) -> Select[Any]:
    return select_mappings(columns).where(MAPPING.volume_uuid == bindparam("volume"))


@cache
def select_exports(columns: frozenset[str]) -> Select[Any]:
    return select(*known_columns(nbd_exports, columns)).where(EXPORTS_OF).order_by(EXPORT.export_name)


@cache
def select_existing(column: Column[Any]) -> Select[Any]:
    return select(column).where(column == bindparam("value")).limit(1)
