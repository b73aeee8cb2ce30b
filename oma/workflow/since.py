"""Since when a replica may have been written to by anything but its replication, as the records date it.

A completed replication or a clean-up of ours settles what came before it. Both count at the earliest meaning of their
time: a doubtful hour settles as little as it can. Some rows have second precision, so that what began within the very
second of such an end may have begun after it.
"""

from __future__ import annotations

from datetime import datetime

from oma.domain.jobs import OPERATION
from oma.domain.records import FailoverRecord, VmRecords
from oma.workflow.doubt import earliest


def begun_at(failover: FailoverRecord) -> datetime | None:
    return failover.created_at or failover.started_at


def to_the_second(at: datetime) -> datetime:
    """As a row of second precision holds it."""
    return at.replace(microsecond=0)


def last_cleanup_at(records: VmRecords) -> datetime | None:
    """When a clean-up of ours last reset the records: everything before it is settled by proven reverts."""
    summary = records.context.last_operation_summary or {}
    at = summary.get("completed_at")
    if summary.get("operation") != OPERATION or not isinstance(at, str):
        return None
    try:
        return datetime.fromisoformat(at)
    except ValueError:
        return None


def settled_at(records: VmRecords) -> datetime | None:
    """When the last completed replication or clean-up of ours ended; None where there was none."""
    ends = [earliest(records, row.completed_at) for row in records.replications if row.status == "completed"]
    return max((at for at in (*ends, last_cleanup_at(records)) if at is not None), default=None)


def failovers_since(records: VmRecords) -> tuple[FailoverRecord, ...]:
    """Failovers, open or ended, that began since then or can't be dated."""
    settled = settled_at(records)
    if settled is None:
        return records.failovers
    floor = to_the_second(settled)
    return tuple(one for one in records.failovers if (at := begun_at(one)) is None or at >= floor)


def oldest_failover_at(records: VmRecords) -> datetime | None:
    """When the oldest failover since the last completed replication or clean-up began; None without a dated one."""
    return min((at for one in failovers_since(records) if (at := begun_at(one)) is not None), default=None)


def written_since(records: VmRecords) -> datetime | None:
    """The earliest moment from which a failover may have written; None where the records date nothing at all."""
    oldest = oldest_failover_at(records)
    return earliest(records, oldest) if oldest is not None else settled_at(records)
