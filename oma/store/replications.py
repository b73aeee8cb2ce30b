"""`replication_jobs` and the configurations that name the OMA."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, not_, or_, select
from sqlalchemy.engine import Connection

from database.tables import ossea_configs, replication_jobs
from oma.domain.records import OmaConfig, ReplicationRecord
from oma.store.doubts import Doubts

NEWEST_KEPT = 10
"""Ended replications read per VM and status; open ones are all read. A VM replicated hourly has thousands."""

CLOSED = ("completed", "failed", "cancelled")


TIMES = ("started_at", "completed_at", "updated_at", "vma_last_poll_at")


def list_replications(
    connection: Connection, context_ids: Iterable[str], doubts: Doubts
) -> list[tuple[str, ReplicationRecord]]:
    """With the context of each; the last touched first. The newest of every status is always among them.

    `doubts` gets those of their times, by context.
    """
    wanted = sorted(set(context_ids))
    if not wanted:
        return []
    table = replication_jobs.c
    touched = func.coalesce(table.updated_at, table.completed_at, table.started_at)
    place = func.row_number().over(
        partition_by=(table.vm_context_id, table.status), order_by=(touched.desc(), table.id.desc())
    )
    ranked = select(table.id, place.label("place")).where(table.vm_context_id.in_(wanted)).subquery("ranked")
    query = (
        select(
            table.id,
            table.vm_context_id,
            table.status,
            table.change_id,
            table.started_at,
            table.completed_at,
            table.updated_at,
            table.vma_last_poll_at,
            *doubts.also(*(table[name] for name in TIMES)),
        )
        .join_from(replication_jobs, ranked, table.id == ranked.c.id)
        .where(or_(ranked.c.place <= NEWEST_KEPT, not_(table.status.in_(CLOSED))))
        .order_by(touched.desc(), table.id.desc())
    )
    rows = connection.execute(query).mappings().all()
    for row in rows:
        doubts.note(row["vm_context_id"], "replication_jobs", row, row["id"], *TIMES)
    return [
        (
            row["vm_context_id"],
            ReplicationRecord(
                id=row["id"],
                status=row["status"] or "",
                change_id=row["change_id"] or None,
                started_at=row["started_at"],
                completed_at=row["completed_at"],
                updated_at=row["updated_at"],
                vma_last_poll_at=row["vma_last_poll_at"],
            ),
        )
        for row in rows
    ]


def list_configs(connection: Connection) -> tuple[OmaConfig, ...]:
    """Without the keys: they are read only where the CloudStack client is made."""
    table = ossea_configs.c
    query = select(table.id, table.name, table.oma_vm_id, table.is_active).order_by(table.id)
    return tuple(
        OmaConfig(id=row.id, name=row.name or "", oma_vm_id=row.oma_vm_id or "", is_active=bool(row.is_active))
        for row in connection.execute(query)
    )
