"""`failover_jobs`: the failovers of a VM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, not_, or_, select, update
from sqlalchemy.engine import Connection

from database.tables import failover_jobs
from oma.domain.errors import ConcurrentChange
from oma.domain.records import FailoverRecord
from oma.store.batches import IDS
from oma.store.doubts import Doubts, also

NEWEST_KEPT = 50
"""Ended failovers read per VM, newest first; open ones are all read. Older ones decide nothing."""

CLOSED = ("completed", "failed")


def _is_open() -> ColumnElement[bool]:
    """As `FailoverRecord.is_open`: any other status, the empty one and NULL included."""
    return or_(failover_jobs.c.status.is_(None), not_(failover_jobs.c.status.in_(CLOSED)))


TIMES = ("created_at", "started_at", "updated_at", "completed_at")

_OPEN: Final = (
    select(failover_jobs.c.id, failover_jobs.c.error_message)
    .where(and_(failover_jobs.c.vm_context_id == bindparam("context"), _is_open()))
    .with_for_update()
)
_CHANGE: Final = update(failover_jobs).where(failover_jobs.c.id == bindparam("the_id"))


@cache
def _select(local: frozenset[str]) -> Select[Any]:
    table = failover_jobs.c
    newest = table.id.desc()
    place = func.row_number().over(partition_by=table.vm_context_id, order_by=newest).label("place")
    ranked = select(table.id, place).where(table.vm_context_id.in_(IDS)).subquery("ranked")
    return (
        select(
            table.id,
            table.vm_context_id,
            table.job_id,
            table.job_type,
            table.status,
            table.destination_vm_id,
            table.ossea_snapshot_id,
            table.source_vm_name,
            table.error_message,
            table.created_at,
            table.started_at,
            table.updated_at,
            table.completed_at,
            *also(local, *(table[name] for name in TIMES)),
        )
        .join_from(failover_jobs, ranked, table.id == ranked.c.id)
        .where(or_(ranked.c.place <= NEWEST_KEPT, _is_open()))
        .order_by(newest)
    )


def list_failovers(connection: Connection, context_ids: Iterable[str], doubts: Doubts) -> list[FailoverRecord]:
    """Newest first; `doubts` gets those of their times, by context.

    The order is that of their ids: a `created_at` in an hour that clocks repeat, or from a clock that was once ahead,
    would put an older failover in front, some of them for ever.
    """
    wanted = sorted(set(context_ids))
    if not wanted:
        return []
    rows = connection.execute(_select(doubts.local), {"ids": wanted}).mappings().all()
    for row in rows:
        doubts.note(row["vm_context_id"], "failover_jobs", row, row["job_id"], *TIMES)
    return [
        FailoverRecord(
            id=row["id"],
            context_id=row["vm_context_id"],
            job_id=row["job_id"],
            job_type=row["job_type"] or "",
            status=row["status"] or "",
            destination_vm_id=row["destination_vm_id"] or None,
            ossea_snapshot_id=row["ossea_snapshot_id"] or None,
            source_vm_name=row["source_vm_name"],
            error_message=row["error_message"],
            created_at=row["created_at"],
            started_at=row["started_at"],
            updated_at=row["updated_at"],
            completed_at=row["completed_at"],
        )
        for row in rows
    ]


def fail_open_failovers(
    connection: Connection, context_id: str, failover_ids: Sequence[int], reason: str, at: datetime
) -> None:
    """Ends these as failed; what they said about their own error stays in front of our reason.

    Raises `ConcurrentChange` where the VM's open failovers are no longer exactly these: somebody else began or ended
    one meanwhile.
    """
    found = {row.id: row.error_message for row in connection.execute(_OPEN, {"context": context_id})}
    if found.keys() != set(failover_ids):
        raise ConcurrentChange(
            f"the open failovers of {context_id} are {sorted(found)}, no longer {sorted(failover_ids)}"
        )
    for failover_id, message in found.items():
        said = f"{message}; {reason}" if message else reason
        values = {"status": "failed", "error_message": said, "completed_at": at, "updated_at": at}
        connection.execute(_CHANGE, {"the_id": failover_id, **values})


def forget_snapshots(connection: Connection, context_id: str, snapshot_ids: Sequence[str], at: datetime) -> None:
    if snapshot_ids:
        connection.execute(
            update(failover_jobs)
            .where(
                and_(failover_jobs.c.vm_context_id == context_id, failover_jobs.c.ossea_snapshot_id.in_(snapshot_ids))
            )
            .values(ossea_snapshot_id="", updated_at=at)
        )
