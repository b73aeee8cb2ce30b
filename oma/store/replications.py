"""`replication_jobs` and the configurations that name the OMA."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from sqlalchemy import Select, func, not_, or_, select
from sqlalchemy.engine import Connection, RowMapping

from database.tables import ossea_configs, replication_jobs
from oma.domain.records import OmaConfig, ReplicationRecord
from oma.store.batches import IDS
from oma.store.doubts import Doubts, also

NEWEST_KEPT = 10
"""Ended replications read per VM and status; open ones are all read. A VM replicated hourly has thousands."""

CLOSED = ("completed", "failed", "cancelled")


TIMES = ("started_at", "completed_at", "updated_at", "vma_last_poll_at")

_CONFIGS: Final = select(
    ossea_configs.c.id, ossea_configs.c.name, ossea_configs.c.oma_vm_id, ossea_configs.c.is_active
).order_by(ossea_configs.c.id)


@cache
def _select(local: frozenset[str]) -> Select[Any]:
    table = replication_jobs.c
    touched = func.coalesce(table.updated_at, table.completed_at, table.started_at)
    place = func.row_number().over(
        partition_by=(table.vm_context_id, table.status), order_by=(touched.desc(), table.id.desc())
    )
    ranked = select(table.id, place.label("place")).where(table.vm_context_id.in_(IDS)).subquery("ranked")
    return (
        select(
            table.id,
            table.vm_context_id,
            table.status,
            table.change_id,
            table.started_at,
            table.completed_at,
            table.updated_at,
            table.vma_last_poll_at,
            *also(local, *(table[name] for name in TIMES)),
        )
        .join_from(replication_jobs, ranked, table.id == ranked.c.id)
        .where(or_(ranked.c.place <= NEWEST_KEPT, not_(table.status.in_(CLOSED))))
        .order_by(touched.desc(), table.id.desc())
    )


def list_replications(
    connection: Connection, context_ids: Iterable[str], doubts: Doubts
) -> list[tuple[str, ReplicationRecord]]:
    """With the context of each; the last touched first. The newest of every status is always among them.

    `doubts` gets those of their times, by context.
    """
    wanted = sorted(set(context_ids))
    if not wanted:
        return []
    rows = connection.execute(_select(doubts.local), {"ids": wanted}).mappings().all()
    for row in rows:
        doubts.note(row["vm_context_id"], "replication_jobs", row, row["id"], *TIMES)
    return [(row["vm_context_id"], _build(row)) for row in rows]


def list_open(connection: Connection, context_id: str) -> list[ReplicationRecord]:
    """As they stand now, whatever this transaction has read before; none begins before it ends."""
    table = replication_jobs.c
    columns = (table.id, table.status, table.change_id, *(table[name] for name in TIMES))
    is_open = or_(table.status.is_(None), not_(table.status.in_(CLOSED)))
    query = select(*columns).where(table.vm_context_id == context_id, is_open).order_by(table.id).with_for_update()
    return [_build(row) for row in connection.execute(query).mappings()]


def _build(row: RowMapping) -> ReplicationRecord:
    return ReplicationRecord(
        id=row["id"],
        status=row["status"] or "",
        change_id=row["change_id"] or None,
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        updated_at=row["updated_at"],
        vma_last_poll_at=row["vma_last_poll_at"],
    )


def list_configs(connection: Connection) -> tuple[OmaConfig, ...]:
    """Without the keys: they are read only where the CloudStack client is made."""
    return tuple(
        OmaConfig(id=row.id, name=row.name or "", oma_vm_id=row.oma_vm_id or "", is_active=bool(row.is_active))
        for row in connection.execute(_CONFIGS)
    )
