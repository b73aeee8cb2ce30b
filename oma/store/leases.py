"""Leases on jobs, measured by the database's own clock; fences grow over all jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, or_, select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_actions, oma_jobs
from database.times import read_clock
from oma.domain.actions import Action
from oma.domain.errors import LeaseLost
from oma.domain.events import Event, EventType
from oma.domain.jobs import ClaimedJob, Job, Lease, Step
from oma.domain.states import JobState
from oma.store import controls, epochs, joblog, recoveries, unreadable
from oma.store.actions import build_action
from oma.store.batches import IDS, group, rows_for
from oma.store.events import Draft, record_events_of
from oma.store.jobs import build_job
from oma.store.sequences import FENCE, take_numbers

CANDIDATES = 50
"""Jobs read at once: the first ones may have been taken by another daemon meanwhile, or have to wait."""


def _claimable() -> ColumnElement[bool]:
    """Nobody works on it at the time `now`, and no person has paused it."""
    table = oma_jobs.c
    free = or_(
        table.state == JobState.QUEUED.value,
        and_(table.state == JobState.RUNNING.value, table.lease_until < bindparam("now")),
    )
    return and_(free, controls.is_not_paused(), epochs.is_not_older())


_OLDEST: Final = (
    select(oma_jobs.c.id)
    .where(_claimable())
    .order_by(oma_jobs.c.created_at, oma_jobs.c.id)
    .limit(CANDIDATES)
    .offset(bindparam("skipped"))
)
_STILL_CLAIMABLE: Final = (
    select(oma_jobs)
    .where(and_(oma_jobs.c.id.in_(IDS), _claimable()))
    .with_hint(oma_jobs, "FORCE INDEX (PRIMARY)", "mysql")
    .with_for_update()
)
"""Asked for a page of jobs at a time: after a restart there are a thousand of them."""


_PLAIN: Final = (oma_jobs.c.context_id, oma_jobs.c.vm_name, oma_jobs.c.requested_by)
_LEASED: Final = (oma_jobs.c.state, oma_jobs.c.lease_owner, oma_jobs.c.lease_fence)
_LOCKED: Final = select(*_LEASED, *_PLAIN).where(oma_jobs.c.id == bindparam("job_id")).with_for_update()
"""Asked by every write of a run, so it is built once; no column of it is one that can't be read."""
_ACTIONS: Final = (
    select(oma_actions)
    .where(oma_actions.c.job_id.in_(IDS))
    .order_by(oma_actions.c.job_id, oma_actions.c.seq, oma_actions.c.id)
    .with_for_update()
)
_CHANGE: Final = update(oma_jobs).where(oma_jobs.c.id == bindparam("job"))
_HELD: Final = and_(oma_jobs.c.lease_owner == bindparam("owner"), oma_jobs.c.state == JobState.RUNNING.value)
_RENEW: Final = update(oma_jobs).where(_HELD)
_RENEWED: Final = select(oma_jobs.c.id).where(_HELD).order_by(oma_jobs.c.created_at, oma_jobs.c.id).with_for_update()


@dataclass(frozen=True, slots=True)
class _Claimant:
    owner: str
    lease_s: float
    now: datetime
    """By the database's clock, when the claim began: whoever has to wait for locks gets so much less."""


_Begun = tuple[ClaimedJob, Draft]
"""A claimed job, and what is told of it."""


def claim_jobs(connection: Connection, owner: str, lease_s: float, most: int) -> tuple[list[ClaimedJob], list[Event]]:
    """The oldest jobs that are queued, or whose lease ran out; fewer than `most` where there are no more.

    The candidates are read without a lock, then they are locked by their keys and judged again, so that a claim waits
    for no other row and two daemons never get the same job.
    """
    by = _Claimant(owner, lease_s, read_clock(connection))
    claimed: list[_Begun] = []
    events: list[Event] = []
    passed_over, left = 0, True
    while left and len(claimed) < most:
        # A page at a time: none of those that wait for their turn keeps a younger one from being found.
        found = connection.execute(_OLDEST, {"now": by.now, "skipped": passed_over}).scalars().all()
        left = len(found) == CANDIDATES
        while found and len(claimed) < most:
            wanted, found = found[: most - len(claimed)], found[most - len(claimed) :]
            taken, told, waiting = _claim_these(connection, wanted, by)
            claimed += taken
            events += told
            passed_over += waiting
    begun = [(one.job, draft) for one, draft in claimed]
    events += record_events_of(connection, [(job.id, job.context_id, draft) for job, draft in begun], by.now)
    joblog.begin_jobs(connection, begun, by.now)
    return [one for one, _draft in claimed], events


def _claim_these(
    connection: Connection, job_ids: Sequence[str], by: _Claimant
) -> tuple[list[_Begun], list[Event], int]:
    """Those of them that can be had, in their order; what is told of others; and how many are left for later.

    Somebody else has those by now, or they have to wait. One that can't be read is parked.
    """
    try:
        found = _read_parts(connection, _choose(connection, job_ids, by))
    except unreadable.UNREADABLE as error:
        if len(job_ids) == 1:
            problem = unreadable.find_problem(connection, job_ids[0], error, build_action)
            return [], unreadable.park(connection, job_ids[0], problem, read_clock(connection)), 0
        # Which one it is shows when each is read by itself.
        claims = [_claim_these(connection, [job_id], by) for job_id in job_ids]
        taken = [one for each, _told, _waiting in claims for one in each]
        told = [event for _taken, each, _waiting in claims for event in each]
        return taken, told, sum(waiting for _taken, _told, waiting in claims)
    return _take(connection, found, by), [], len(job_ids) - len(found)


def renew_leases(connection: Connection, owner: str, lease_s: float) -> list[str]:
    """A lease that ran out and that nobody took is still the owner's."""
    until = read_clock(connection) + timedelta(seconds=lease_s)
    connection.execute(_RENEW, {"owner": owner, "lease_until": until})
    return list(connection.execute(_RENEWED, {"owner": owner}).scalars())


def lock_leased_job(connection: Connection, lease: Lease) -> RowMapping:
    """The job's row, locked to the commit; raises `LeaseLost` where the lease is not the current one."""
    row = connection.execute(_LOCKED, {"job_id": lease.job_id}).mappings().first()
    if row is None:
        raise LeaseLost(f"there is no job {lease.job_id}")
    held = row["state"] == JobState.RUNNING.value and row["lease_owner"] == lease.owner
    if not held or row["lease_fence"] != lease.fence:
        raise LeaseLost(
            f"job {lease.job_id} is {row['state']} at fence {row['lease_fence']}; this lease was fence {lease.fence}"
        )
    return row


def _take(connection: Connection, found: Sequence[_Parts], by: _Claimant) -> list[_Begun]:
    if not found:
        return []
    first = take_numbers(connection, FENCE, len(found))
    taken = [_begin(parts, by, first + place) for place, parts in enumerate(found)]
    fixed = {
        "state": JobState.RUNNING.value,
        "lease_owner": by.owner,
        "lease_until": by.now + timedelta(seconds=by.lease_s),
        "ended_at": None,
        "updated_at": by.now,
    }
    changes = [
        {
            "job": claimed.job.id,
            "lease_fence": claimed.lease.fence,
            "started_at": claimed.job.started_at,
            "request": parts.request,
            **fixed,
        }
        for parts, (claimed, _draft) in zip(found, taken, strict=True)
    ]
    connection.execute(_CHANGE, changes)
    return taken


def _begin(parts: _Parts, by: _Claimant, fence: int) -> _Begun:
    row, owner, recovered = parts.row, by.owner, parts.row["started_at"] is not None
    draft = Draft(EventType.JOB_STARTED, _sentence(row, owner), {"owner": owner, "fence": fence, "again": recovered})
    job = replace(
        parts.job,
        state=JobState.RUNNING,
        lease_owner=owner,
        lease_fence=fence,
        started_at=row["started_at"] or by.now,
        ended_at=None,
    )
    lease = Lease(job.id, owner, fence)
    return ClaimedJob(lease, job, parts.steps, parts.actions, recovered, recoveries.read_count(parts.request)), draft


def _sentence(row: RowMapping, owner: str) -> str:
    if row["state"] == JobState.RUNNING.value:
        return f"{owner} took over the clean-up of {row['vm_name']}; the lease of {row['lease_owner']} had run out."
    if row["started_at"] is not None:
        return f"{owner} went on with the clean-up of {row['vm_name']}."
    return f"{owner} began the clean-up of {row['vm_name']}."


@dataclass(frozen=True, slots=True)
class _Parts:
    """Everything of a job that its runner needs."""

    row: RowMapping
    job: Job
    steps: tuple[Step, ...]
    actions: tuple[Action, ...]
    request: dict[str, Any]
    """As it is stored with this claim."""


def _choose(connection: Connection, job_ids: Sequence[str], by: _Claimant) -> list[tuple[RowMapping, dict[str, Any]]]:
    """The rows of those that may be claimed now, locked, each with the request that is stored with the claim.

    A suspect that has to wait until another one has been tried is none of them. Raises `UNREADABLE`.
    """
    rows = {row["id"]: row for row in connection.execute(_STILL_CLAIMABLE, {"now": by.now, "ids": job_ids}).mappings()}
    ended = recoveries.count_ended(connection, rows)
    chosen: list[tuple[RowMapping, dict[str, Any]]] = []
    on_trial: list[int] | None = None
    for row in (rows[job_id] for job_id in job_ids if job_id in rows):
        counted = recoveries.count_recovery(row, ended.get(row["id"], 0), by.now, by.lease_s)
        if recoveries.read_count(counted) >= recoveries.SUSPECT:
            if on_trial is None:
                on_trial = recoveries.list_on_trial(connection, by.now, by.lease_s)
            if not recoveries.has_its_turn(counted, on_trial):
                continue
            on_trial.append(recoveries.read_count(counted))
        unreadable.require_storable(counted)
        chosen.append((row, counted))
    return chosen


def _read_parts(connection: Connection, chosen: Sequence[tuple[RowMapping, dict[str, Any]]]) -> list[_Parts]:
    """By locking reads: a former holder's last commit may be younger than this transaction's snapshot.

    Raises `UNREADABLE`.
    """
    job_ids = [row["id"] for row, _counted in chosen]
    steps = joblog.list_steps_of(connection, job_ids)
    rows = group(rows_for(connection, _ACTIONS, job_ids), lambda row: str(row["job_id"]))
    return [
        _Parts(
            row,
            build_job(row),
            tuple(steps.get(row["id"], ())),
            tuple(build_action(one) for one in rows.get(row["id"], ())),
            counted,
        )
        for row, counted in chosen
    ]
