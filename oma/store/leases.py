"""Leases on jobs, measured by the database's own clock; fences grow over all jobs."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_actions, oma_jobs
from database.times import read_clock
from oma.domain.errors import LeaseLost
from oma.domain.events import Event, EventType
from oma.domain.jobs import ClaimedJob, Lease
from oma.domain.states import JobState
from oma.store import joblog
from oma.store.actions import build_action
from oma.store.events import Draft, record_events
from oma.store.jobs import build_job
from oma.store.sequences import FENCE, take_numbers

CANDIDATES = 50
"""Jobs looked at before a claim gives up: the first ones may have been taken by another daemon meanwhile."""


def claim_job(connection: Connection, owner: str, lease_s: float) -> tuple[ClaimedJob | None, list[Event]]:
    """The oldest job that is queued, or whose lease ran out; None where there is none.

    The candidates are read without a lock, then each is locked by its key and judged again, so that a claim waits for
    one row only and two daemons never get the same job.
    """
    now = read_clock(connection)
    table = oma_jobs.c
    query = select(table.id).where(_claimable(now)).order_by(table.created_at, table.id).limit(CANDIDATES)
    for job_id in connection.execute(query).scalars().all():
        locked = select(oma_jobs).where(and_(table.id == job_id, _claimable(now))).with_for_update()
        row = connection.execute(locked).mappings().first()
        if row is not None:
            return _take(connection, row, owner, lease_s)
    return None, []


def renew_leases(connection: Connection, owner: str, lease_s: float) -> list[str]:
    """A lease that ran out and that nobody took is still the owner's."""
    table = oma_jobs.c
    held = and_(table.lease_owner == owner, table.state == JobState.RUNNING.value)
    until = read_clock(connection) + timedelta(seconds=lease_s)
    connection.execute(update(oma_jobs).where(held).values(lease_until=until))
    query = select(table.id).where(held).order_by(table.created_at, table.id)
    return list(connection.execute(query.with_for_update()).scalars())


def lock_leased_job(connection: Connection, lease: Lease) -> RowMapping:
    """The job's row, locked to the commit; raises `LeaseLost` where the lease is not the current one."""
    query = select(oma_jobs).where(oma_jobs.c.id == lease.job_id).with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None:
        raise LeaseLost(f"there is no job {lease.job_id}")
    held = row["state"] == JobState.RUNNING.value and row["lease_owner"] == lease.owner
    if not held or row["lease_fence"] != lease.fence:
        raise LeaseLost(
            f"job {lease.job_id} is {row['state']} at fence {row['lease_fence']}; this lease was fence {lease.fence}"
        )
    return row


def _claimable(now: datetime) -> ColumnElement[bool]:
    table = oma_jobs.c
    return or_(
        table.state == JobState.QUEUED.value,
        and_(table.state == JobState.RUNNING.value, table.lease_until < now),
    )


def _take(connection: Connection, row: RowMapping, owner: str, lease_s: float) -> tuple[ClaimedJob, list[Event]]:
    now = read_clock(connection)
    job_id, recovered = row["id"], row["started_at"] is not None
    fence = take_numbers(connection, FENCE)
    connection.execute(
        update(oma_jobs)
        .where(oma_jobs.c.id == job_id)
        .values(
            state=JobState.RUNNING.value,
            lease_owner=owner,
            lease_until=now + timedelta(seconds=lease_s),
            lease_fence=fence,
            started_at=row["started_at"] or now,
            ended_at=None,
            updated_at=now,
        )
    )
    joblog.change_job(
        connection,
        job_id,
        now,
        status="running",
        started_at=row["started_at"] or now,
        completed_at=None,
        error_message=None,
    )
    draft = Draft(EventType.JOB_STARTED, _sentence(row, owner), {"owner": owner, "fence": fence, "again": recovered})
    events = record_events(connection, job_id, row["context_id"], [draft], now)
    joblog.add_lines(connection, job_id, [draft], now)
    return _read_claimed(connection, Lease(job_id, owner, fence), recovered=recovered), events


def _sentence(row: RowMapping, owner: str) -> str:
    if row["state"] == JobState.RUNNING.value:
        return f"{owner} took over the clean-up of {row['vm_name']}; the lease of {row['lease_owner']} had run out."
    if row["started_at"] is not None:
        return f"{owner} went on with the clean-up of {row['vm_name']}."
    return f"{owner} began the clean-up of {row['vm_name']}."


def _read_claimed(connection: Connection, lease: Lease, *, recovered: bool) -> ClaimedJob:
    """By locking reads: a former holder's last commit may be younger than this transaction's snapshot."""
    job = select(oma_jobs).where(oma_jobs.c.id == lease.job_id).with_for_update()
    actions = (
        select(oma_actions)
        .where(oma_actions.c.job_id == lease.job_id)
        .order_by(oma_actions.c.seq, oma_actions.c.id)
        .with_for_update()
    )
    return ClaimedJob(
        lease=lease,
        job=build_job(connection.execute(job).mappings().one()),
        steps=tuple(joblog.list_steps(connection, lease.job_id, locked=True)),
        actions=tuple(build_action(row) for row in connection.execute(actions).mappings()),
        recovered=recovered,
    )
