"""What the watcher reads and writes: jobs of our own that take long, and the issues that it opens and closes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.engine import Connection

from database.tables import oma_events, oma_issues, oma_jobs
from oma.domain.events import Event, EventType
from oma.domain.issues import WATCHED_KINDS, Issue
from oma.domain.states import IssueState, JobState
from oma.domain.watching import SlowJob
from oma.store import controls
from oma.store.batches import IDS, rows_for
from oma.store.world_issues import open_world_issues, resolve_moot

FRESH = (EventType.JOB_RESUMED.value, EventType.JOB_RELEASED.value)
"""From here on a job's time counts anew."""
_ANEW: Final = (
    select(oma_events.c.job_id, func.max(oma_events.c.at).label("last"))
    .where(oma_events.c.type.in_(FRESH), oma_events.c.job_id.in_(IDS))
    .group_by(oma_events.c.job_id)
)


def list_slow_jobs(connection: Connection, before: datetime) -> list[SlowJob]:
    """Jobs that are queued or running, not paused, and have not ended since `before`; oldest first."""
    table = oma_jobs.c
    query = (
        select(oma_jobs)
        .where(
            table.state.in_([JobState.QUEUED.value, JobState.RUNNING.value]),
            table.created_at < before,
            controls.is_not_paused(),
        )
        .order_by(table.created_at, table.id)
    )
    rows = list(connection.execute(query).mappings())
    anew = _begun_anew(connection, [row["id"] for row in rows])
    lifts = controls.list_lifts(connection)
    found: list[SlowJob] = []
    for row in rows:
        times = [row["started_at"] or row["created_at"], anew.get(row["id"])]
        times += [at for what, at in lifts if what.covers(row["context_id"], row["operation"])]
        since = max(at for at in times if at is not None)
        if since < before:
            found.append(
                SlowJob(
                    id=row["id"],
                    context_id=row["context_id"],
                    vm_name=row["vm_name"],
                    state=JobState(row["state"]),
                    phase=row["phase"],
                    holder=row["lease_owner"],
                    since=since,
                )
            )
    return found


def settle_watched(
    connection: Connection, kind: str, new: Sequence[Issue], kept: Collection[str], sentence: str, *, at: datetime
) -> tuple[tuple[int, int], list[Event]]:
    """Opens the `new` ones, and resolves those of this kind whose cause is not among the `kept`; how many of each."""
    if kind not in WATCHED_KINDS:
        raise ValueError(f"{kind} is no kind of the watcher's")
    _ids, events = open_world_issues(connection, new, at)
    opened = len(events)
    table = oma_issues.c
    query = (
        select(table.id, table.cause, table.context_id, table.evidence)
        .where(table.state == IssueState.OPEN.value, table.kind == kind)
        .order_by(table.opened_at, table.id)
        .with_for_update()
    )
    wanted = {*kept, *(issue.cause for issue in new)}
    moot = [row for row in connection.execute(query).mappings() if row["cause"] not in wanted]
    return (opened, len(moot)), [*events, *resolve_moot(connection, moot, sentence, {}, at)]


def _begun_anew(connection: Connection, job_ids: Sequence[str]) -> dict[str, datetime]:
    return {row["job_id"]: row["last"] for row in rows_for(connection, _ANEW, job_ids)}
