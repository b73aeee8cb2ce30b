"""The JobLog rows of others: of a VM's failovers, and of whatever else runs on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Select, and_, func, select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import job_steps, job_tracking, log_events, oma_jobs
from oma.domain.records import FailoverRecord, JobLogRecord
from oma.store.batches import IDS, group, rows_for
from oma.store.doubts import Doubts, also

HARMLESS_CATEGORIES = ("discovery",)
"""Jobs that only read: they touch no volume."""

STEP_TIMES = ("started_at", "completed_at")
COLUMNS = (
    job_tracking.c.id,
    job_tracking.c.status,
    job_tracking.c.job_type,
    job_tracking.c.operation,
    job_tracking.c.context_id,
    job_tracking.c.job_category,
    job_tracking.c.started_at,
)
_NAMED: Final = select(*COLUMNS).where(job_tracking.c.id.in_(IDS))
_RUNNING: Final = select(*COLUMNS).where(job_tracking.c.status == "running", job_tracking.c.context_id.in_(IDS))
_OURS: Final = select(oma_jobs.c.id).where(oma_jobs.c.id.in_(IDS))


@cache
def _select_steps(local: frozenset[str]) -> Select[Any]:
    table = job_steps.c
    columns = (table.job_id, table.name, table.seq, table.status, table.started_at, table.completed_at)
    times = also(local, *(table[name] for name in STEP_TIMES))
    return select(*columns, *times).where(table.job_id.in_(IDS)).order_by(table.job_id, table.seq)


@cache
def _select_last_lines(local: frozenset[str]) -> Select[Any]:
    table = log_events.c
    last = func.max(table.ts).label("ts")
    return select(table.job_id, last, *also(local, last)).where(table.job_id.in_(IDS)).group_by(table.job_id)


@dataclass(frozen=True, slots=True)
class ForeignJobLog:
    """`named`: the rows that were asked for by their ids. `running`: context and row of what else runs on the VMs."""

    named: list[JobLogRecord]
    running: list[tuple[str, JobLogRecord]]


def read_foreign_joblog(
    connection: Connection, failovers: Sequence[FailoverRecord], context_ids: Iterable[str], doubts: Doubts
) -> ForeignJobLog:
    """The failovers' own rows, and every other row of these VMs that is running, is not ours and may write.

    A closed failover whose row still runs is among both: nobody else judges it. `doubts` gets their times, by context.
    """
    contexts = {failover.job_id: failover.context_id or "" for failover in failovers}
    named = list(rows_for(connection, _NAMED, contexts))
    running = list(rows_for(connection, _RUNNING, context_ids))
    judged = {failover.job_id for failover in failovers if failover.is_open}
    others = [row for row in running if row["id"] not in judged and row["job_category"] not in HARMLESS_CATEGORIES]
    # Asked apart: an existing installation may keep its ids in another collation, with which ours can't be joined.
    own = rows_for(connection, _OURS, (row["id"] for row in others))
    ours = {row["id"] for row in own}
    others = [row for row in others if row["id"] not in ours]
    contexts |= {row["id"]: row["context_id"] for row in others}
    rows = {row["id"]: row for row in (*named, *others)}
    records = _build(connection, rows, contexts, doubts)
    return ForeignJobLog(
        [records[row["id"]] for row in named], [(row["context_id"], records[row["id"]]) for row in others]
    )


def fail_open_joblog(connection: Connection, job_ids: Sequence[str], reason: str, at: datetime) -> None:
    """Ends these `job_tracking` rows and their running steps as failed; no row goes, ended ones stay as they are."""
    if not job_ids:
        return
    connection.execute(
        update(job_tracking)
        .where(and_(job_tracking.c.id.in_(job_ids), job_tracking.c.status.in_(("pending", "running"))))
        .values(status="failed", error_message=reason, completed_at=at, updated_at=at)
    )
    connection.execute(
        update(job_steps)
        .where(and_(job_steps.c.job_id.in_(job_ids), job_steps.c.status == "running"))
        .values(status="failed", error_message=reason, completed_at=at)
    )


def _build(
    connection: Connection, rows: dict[str, RowMapping], owners: dict[str, str], doubts: Doubts
) -> dict[str, JobLogRecord]:
    steps_of = group(_steps(connection, rows, owners, doubts), lambda row: str(row["job_id"]))
    last_lines = _last_lines(connection, rows, owners, doubts)
    records: dict[str, JobLogRecord] = {}
    for job_id, row in rows.items():
        steps = steps_of.get(job_id, [])
        times = [step[name] for step in steps for name in STEP_TIMES]
        times.append(last_lines.get(job_id))
        records[job_id] = JobLogRecord(
            job_id=job_id,
            status=row["status"] or "",
            job_type=row["job_type"] or "",
            operation=row["operation"] or "",
            step_names=tuple(step["name"] for step in steps),
            running_step_names=tuple(step["name"] for step in steps if step["status"] == "running"),
            failed_step_names=tuple(step["name"] for step in steps if step["status"] == "failed"),
            # Begun, and nothing written yet: its beginning is then its only sign of life.
            last_activity_at=max((at for at in times if at is not None), default=row["started_at"]),
        )
    return records


def _steps(
    connection: Connection, job_ids: Iterable[str], owners: dict[str, str], doubts: Doubts
) -> Iterator[RowMapping]:
    for row in rows_for(connection, _select_steps(doubts.local), job_ids):
        doubts.note(owners[row["job_id"]], "job_steps", row, f"{row['name']} of {row['job_id']}", *STEP_TIMES)
        yield row


def _last_lines(
    connection: Connection, job_ids: Iterable[str], owners: dict[str, str], doubts: Doubts
) -> dict[str, datetime]:
    """When each job wrote its last line."""
    found: dict[str, datetime] = {}
    for row in rows_for(connection, _select_last_lines(doubts.local), job_ids):
        doubts.note(owners[row["job_id"]], "log_events", row, f"the last line of {row['job_id']}", "ts")
        if row["ts"] is not None:
            found[row["job_id"]] = row["ts"]
    return found
