"""`vm_replication_contexts`: the VMs, and the status that keeps others away from one while it is cleaned up."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, or_, select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import vm_replication_contexts as contexts
from oma.domain.errors import ConcurrentChange
from oma.domain.records import CLEANUP_REQUIRED, VmContext
from oma.ports import ContextFilter, Page
from oma.store.batches import IDS, rows_for
from oma.store.cursors import build_page, decode_cursor, encode_cursor

LIST_NAME = "vm-contexts"
MOST_NEAR_MATCHES = 10
COLUMNS = (
    contexts.c.context_id,
    contexts.c.vm_name,
    contexts.c.vcenter_host,
    contexts.c.current_status,
    contexts.c.current_job_id,
    contexts.c.ossea_config_id,
    contexts.c.vmware_vm_id,
    contexts.c.power_state,
    contexts.c.os_type,
    contexts.c.cpu_count,
    contexts.c.memory_mb,
    contexts.c.last_status_change,
    contexts.c.updated_at,
    contexts.c.last_operation_summary,
)

_IS: Final = contexts.c.context_id == bindparam("context")
_FIND: Final = select(*COLUMNS).where(_IS)
_FIND_ALL: Final = select(*COLUMNS).where(contexts.c.context_id.in_(IDS))
_NAMED: Final = select(*COLUMNS).where(contexts.c.vm_name == bindparam("name")).order_by(contexts.c.vcenter_host)
_LOCKED: Final = select(contexts.c.current_status, contexts.c.current_job_id).where(_IS).with_for_update()
_SUMMARY: Final = select(contexts.c.last_operation_summary).where(_IS).with_for_update()
_CHANGE: Final = update(contexts).where(_IS)


def find_context(connection: Connection, context_id: str) -> VmContext | None:
    """Code point by code point, whatever the collation finds equal."""
    rows = connection.execute(_FIND, {"context": context_id}).mappings()
    return next((build_context(row) for row in rows if row["context_id"] == context_id), None)


def list_contexts_of(connection: Connection, context_ids: Sequence[str]) -> list[VmContext]:
    """Those that exist, in no order; as exact as `find_context`."""
    wanted = frozenset(context_ids)
    rows = rows_for(connection, _FIND_ALL, wanted)
    return [build_context(row) for row in rows if row["context_id"] in wanted]


def list_contexts_named(connection: Connection, vm_name: str) -> tuple[Sequence[VmContext], Sequence[str]]:
    """Contexts of exactly this name; where there is none, the names that differ only in case, blanks or composition."""
    rows = connection.execute(_NAMED, {"name": vm_name}).mappings()
    found = [build_context(row) for row in rows if row["vm_name"] == vm_name]
    if found:
        return found, ()
    # No index knows what is near; the names alone are read, and only after a miss.
    wanted = near_key(vm_name)
    names = connection.execute(select(contexts.c.vm_name).distinct()).scalars()
    return (), sorted(name for name in names if near_key(name) == wanted)[:MOST_NEAR_MATCHES]


def near_key(name: str) -> str:
    """Equal for names that a person takes for the same: case, blanks and composed characters do not count."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def list_contexts(connection: Connection, where: ContextFilter, limit: int, cursor: str | None) -> Page[VmContext]:
    """By name as the database sorts it, then by id."""
    query = select(*COLUMNS).order_by(contexts.c.vm_name, contexts.c.context_id).limit(limit + 1)
    if where.status is not None:
        query = query.where(contexts.c.current_status == where.status)
    if where.q:
        query = query.where(_name_contains(where.q))
    if cursor is not None:
        vm_name, context_id = decode_cursor(LIST_NAME, cursor, (str, str))
        query = query.where(
            or_(
                contexts.c.vm_name > vm_name,
                and_(contexts.c.vm_name == vm_name, contexts.c.context_id > context_id),
            )
        )
    rows = [build_context(row) for row in connection.execute(query).mappings()]
    return build_page(rows, limit, lambda context: encode_cursor(LIST_NAME, context.vm_name, context.context_id))


def _name_contains(part: str) -> ColumnElement[bool]:
    """Without regard to case. SQLite folds ASCII letters only, so the usual spellings are asked for as well."""
    spellings = sorted({part, part.lower(), part.upper(), part.capitalize()})
    return or_(*(contexts.c.vm_name.icontains(spelling, autoescape=True) for spelling in spellings))


def claim_context(connection: Connection, context_id: str, observed_status: str, at: datetime) -> None:
    """Sets `cleanup_required`; raises `ConcurrentChange` where the status is no longer the observed one.

    The row is locked and compared here, not counted afterwards: a server may count a row as unchanged whose status
    was `cleanup_required` already.
    """
    status, _job_id = lock_context(connection, context_id)
    if status != observed_status:
        raise ConcurrentChange(f"the status of {context_id} is {status}, no longer {observed_status}")
    set_status(connection, context_id, CLEANUP_REQUIRED, at)


def lock_context(connection: Connection, context_id: str) -> tuple[str, str | None]:
    """Status and current job as they are now; nobody changes them until the commit. Gone: `ConcurrentChange`."""
    found = find_locked(connection, context_id)
    if found is None:
        raise ConcurrentChange(f"the context {context_id} is gone")
    return found


def find_locked(connection: Connection, context_id: str) -> tuple[str, str | None] | None:
    row = connection.execute(_LOCKED, {"context": context_id}).first()
    return None if row is None else (row.current_status, row.current_job_id)


def set_status(connection: Connection, context_id: str, status: str, at: datetime, **more: Any) -> None:
    values = {"current_status": status, "last_status_change": at, "updated_at": at, **more}
    connection.execute(_CHANGE, {"context": context_id, **values})


def set_summary(connection: Connection, context_id: str, summary: dict[str, Any], at: datetime) -> None:
    """What the last run came to. When a clean-up was last complete stays in it: the guards judge by that."""
    former = connection.execute(_SUMMARY, {"context": context_id}).scalar_one_or_none()
    kept: dict[str, Any] = {}
    if isinstance(former, dict) and former.get("operation") == summary.get("operation"):
        kept = {key: former[key] for key in ("completed_at",) if key in former}
    values = {"last_operation_summary": {**kept, **summary}, "updated_at": at}
    connection.execute(_CHANGE, {"context": context_id, **values})


def build_context(row: RowMapping) -> VmContext:
    summary = row["last_operation_summary"]
    return VmContext(
        context_id=row["context_id"],
        vm_name=row["vm_name"],
        vcenter_host=row["vcenter_host"] or "",
        current_status=row["current_status"] or "",
        current_job_id=row["current_job_id"] or None,
        ossea_config_id=row["ossea_config_id"],
        vmware_vm_id=row["vmware_vm_id"] or "",
        power_state=row["power_state"],
        os_type=row["os_type"],
        cpu_count=row["cpu_count"],
        memory_mb=row["memory_mb"],
        last_status_change=row["last_status_change"],
        updated_at=row["updated_at"],
        last_operation_summary=summary if isinstance(summary, dict) else None,
    )
