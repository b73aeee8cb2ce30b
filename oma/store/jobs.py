"""`oma_jobs` and `oma_volume_claims`: reading jobs, and who holds a VM or a volume."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, bindparam, func, or_, select
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_jobs
from oma.domain.jobs import CleanupRequest, Job
from oma.domain.plan import Plan
from oma.domain.states import ACTIVE_JOB_STATES, JobState, Phase
from oma.domain.undoing import CancelAsked, Undoing
from oma.ports import JobFilter, Page
from oma.store.batches import IDS, group, rows_for
from oma.store.cursors import build_page, decode_cursor, decode_time, encode_cursor
from oma.store.unreadable import UNREADABLE, build_readable, told

LIST_NAME = "jobs"
RESUMED_BY = "resumed_by_key"
CANCEL = "cancel"
"""In a job's request: who wants it stopped."""
UNDOING = "undoing"
"""In a job's request: it is on its way back, and why."""
"""In a job's stored request: the key of the call that resumed it last, so that the same call resumes it once."""
RESUMED_WITH = "resumed_with"
"""Beside it: the words of that call."""
BAD_ENDS = (JobState.FAILED.value, JobState.PARKED.value)
ENDS = (*BAD_ENDS, JobState.COMPLETED.value, JobState.CANCELLED.value)

_FIND: Final = select(oma_jobs).where(oma_jobs.c.id == bindparam("job"))
_ACTIVE: Final = select(oma_jobs.c.active_context_id, oma_jobs.c.id, oma_jobs.c.lease_owner, oma_jobs.c.state).where(
    oma_jobs.c.active_context_id.in_(IDS)
)
_ENDED: Final = select(oma_jobs.c.context_id, oma_jobs.c.id).where(
    oma_jobs.c.context_id.in_(IDS), oma_jobs.c.state.in_(sorted(set(ENDS) - {JobState.PARKED.value}))
)


def _select_last_ends() -> Select[tuple[str, str]]:
    table = oma_jobs.c
    newest = (table.ended_at.desc(), table.created_at.desc(), table.id.desc())
    place = func.row_number().over(partition_by=table.context_id, order_by=newest)
    ranked = (
        select(table.context_id, table.state, place.label("place"))
        .where(table.context_id.in_(IDS), table.state.in_(ENDS))
        .subquery("ranked")
    )
    return select(ranked.c.context_id, ranked.c.state).where(ranked.c.place == 1)


_LAST_ENDS: Final = _select_last_ends()


def find_job(connection: Connection, job_id: str) -> Job | None:
    try:
        row = connection.execute(_FIND, {"job": job_id}).mappings().first()
        return None if row is None else build_job(row)
    except UNREADABLE as error:
        raise told(f"the run {job_id}", error) from error


def find_job_by_key(
    connection: Connection, idempotency_key: str, *, locked: bool = False
) -> tuple[Job, str | None] | None:
    """The job that was queued under this key, with the hash of its request."""
    query = select(oma_jobs).where(oma_jobs.c.idempotency_key == idempotency_key)
    row = connection.execute(query.with_for_update() if locked else query).mappings().first()
    return None if row is None else (build_job(row), row["request_hash"])


def find_job_resumed_by(connection: Connection, context_id: str, idempotency_key: str) -> Job | None:
    """The context's newest job, where the call with this key resumed it last."""
    table = oma_jobs.c
    query = select(oma_jobs).where(table.context_id == context_id).order_by(table.created_at.desc(), table.id.desc())
    row = connection.execute(query.limit(1)).mappings().first()
    return build_job(row) if row is not None and row["request"].get(RESUMED_BY) == idempotency_key else None


def list_jobs(connection: Connection, where: JobFilter, limit: int, cursor: str | None) -> Page[Job]:
    """Newest first."""
    table = oma_jobs.c
    query = select(oma_jobs).order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)
    equal = (
        (table.vm_name, where.vm),
        (table.context_id, where.context_id),
        (table.state, where.status),
        (table.operation, where.operation),
        (table.correlation_id, where.correlation_id),
    )
    for column, value in equal:
        if value is not None:
            query = query.where(column == value)
    if where.since is not None:
        query = query.where(table.created_at >= where.since)
    if where.until is not None:
        query = query.where(table.created_at < where.until)
    if cursor is not None:
        text, job_id = decode_cursor(LIST_NAME, cursor, (str, str))
        at = decode_time(text)
        query = query.where(or_(table.created_at < at, and_(table.created_at == at, table.id < job_id)))
    rows = build_readable(connection, query, oma_jobs, build_job)
    return build_page(rows, limit, lambda job: encode_cursor(LIST_NAME, job.created_at.isoformat(), job.id))


def find_active(connection: Connection, context_ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Context → the id of its active job, and who holds it: the lease's owner, else the state it waits in."""
    return {
        row["active_context_id"]: (row["id"], row["lease_owner"] or row["state"])
        for row in rows_for(connection, _ACTIVE, context_ids)
    }


def list_failed_last(connection: Connection, context_ids: Iterable[str]) -> frozenset[str]:
    """The contexts whose newest ended or parked run failed or parked."""
    rows = rows_for(connection, _LAST_ENDS, context_ids)
    return frozenset(row["context_id"] for row in rows if row["state"] in BAD_ENDS)


def list_ended(connection: Connection, context_ids: Iterable[str]) -> dict[str, frozenset[str]]:
    """Context → its runs that have ended, the parked ones not among them."""
    found = group(rows_for(connection, _ENDED, context_ids), lambda row: str(row["context_id"]))
    return {context_id: frozenset(str(row["id"]) for row in rows) for context_id, rows in found.items()}


def select_partial() -> Select[tuple[str, str, datetime]]:
    """Id, context and time of the partial runs of the VMs `IDS` since the last complete one of each."""
    table = oma_jobs.c
    return _since_complete(and_(table.state == JobState.COMPLETED.value, table.partial.is_(True)))


def select_gone_back() -> Select[tuple[str, str, datetime]]:
    """The same of the runs that failed or were cancelled."""
    return _since_complete(oma_jobs.c.state.in_([JobState.FAILED.value, JobState.CANCELLED.value]))


def _since_complete(which: ColumnElement[bool]) -> Select[tuple[str, str, datetime]]:
    table = oma_jobs.c
    of_them = table.context_id.in_(IDS)
    complete = (
        select(table.context_id, func.max(table.created_at).label("last"))
        .where(and_(of_them, table.state == JobState.COMPLETED.value, table.partial.is_(False)))
        .group_by(table.context_id)
        .subquery("complete")
    )
    return (
        select(table.id, table.context_id, table.created_at)
        .outerjoin(complete, complete.c.context_id == table.context_id)
        .where(and_(of_them, which, or_(complete.c.last.is_(None), table.created_at > complete.c.last)))
    )


def count_active(connection: Connection) -> dict[str, int]:
    states = sorted(state.value for state in ACTIVE_JOB_STATES)
    query = select(oma_jobs.c.state, func.count()).where(oma_jobs.c.state.in_(states)).group_by(oma_jobs.c.state)
    counts = dict.fromkeys(states, 0)
    counts.update({state: int(count) for state, count in connection.execute(query)})
    return counts


def build_job(row: RowMapping) -> Job:
    request: dict[str, Any] = row["request"]
    return Job(
        id=row["id"],
        context_id=row["context_id"],
        vm_name=row["vm_name"],
        state=JobState(row["state"]),
        request=CleanupRequest.from_json(request),
        plan=Plan.from_json(row["plan"]),
        plan_digest=row["plan_digest"],
        correlation_id=row["correlation_id"],
        requested_by=row["requested_by"],
        created_at=row["created_at"],
        phase=None if row["phase"] is None else Phase(row["phase"]),
        reverted=bool(row["reverted"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        result=row["result"],
        error=row["error"],
        lease_owner=row["lease_owner"],
        lease_fence=row["lease_fence"],
        cancel=CancelAsked.from_json(request[CANCEL]) if request.get(CANCEL) else None,
        undoing=Undoing.from_json(request[UNDOING]) if request.get(UNDOING) else None,
    )
