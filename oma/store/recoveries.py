"""How often in a row a job was taken over from a holder that died, kept in its stored request.

When a daemon dies, every job that it ran is taken over, and only one of them may have been the cause. So a job is tried
for a while after each claim: a death within its trial counts, one after it makes the next trial twice as long. The more
often a job has been counted, the fewer such jobs are on trial at once, and at last each of them alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Text, and_, func, select, type_coerce
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_actions, oma_jobs
from oma.domain.states import ActionState, JobState
from oma.store.batches import IDS, rows_for
from oma.store.unreadable import UNREADABLE

RECOVERIES: Final = "recoveries"
"""In a job's stored request: `count`; `at`, which says how far the job was at the last of them; `tried_at`, when it was
claimed last, by the database's clock; `outlived`, how often its trial was over when its holder died."""
SUSPECT: Final = 2
"""From so many on it may be the job that kills them: one death alone is any restart."""
TOGETHER: Final = {2: 64, 3: 16, 4: 4}
"""How many suspects are on trial at once, by the highest count among them; beyond these each is alone."""
LONGEST: Final = 20
"""After so many trials that it outlived the next one is no longer than the last: about a year, at leases of 30 s."""
UNENDED: Final = (ActionState.PLANNED.value, ActionState.STARTED.value)
_ENDED: Final = (
    select(oma_actions.c.job_id, func.count().label("ended"))
    .where(and_(oma_actions.c.job_id.in_(IDS), oma_actions.c.state.not_in(UNENDED)))
    .group_by(oma_actions.c.job_id)
)


def count_ended(connection: Connection, job_ids: Iterable[str]) -> dict[str, int]:
    """Job → its actions that have ended; one without any is not among them."""
    return {row["job_id"]: int(row["ended"]) for row in rows_for(connection, _ENDED, job_ids)}


def count_recovery(row: RowMapping, ended: int, now: datetime, trial_s: float) -> dict[str, Any]:
    """The stored request of a job that is about to be claimed at `now`, with one recovery more where its holder died.

    A job that got further than at the last time, by the actions of it that have `ended`, is counted anew, so that only
    one that never does comes to its bound. A job that was given back, at a stop or by a run that the database broke
    off, is none. `trial_s`: how long its first trial lasts, and a lease.
    """
    request: dict[str, Any] = dict(row["request"])
    last = request.get(RECOVERIES) or {}
    if row["state"] != JobState.RUNNING.value:
        if last:
            request[RECOVERIES] = {**last, "tried_at": now.isoformat()}
        return request
    at = f"{row['phase']}/{ended}"
    again = last.get("at") == at
    count, outlived = (last["count"], last.get("outlived", 0)) if again else (0, 0)
    # The lease was renewed last when its holder still lived.
    if again and row["lease_until"] - timedelta(seconds=trial_s) >= _end_of_trial(last, trial_s):
        outlived += 1
    else:
        count += 1
    request[RECOVERIES] = {"count": count, "at": at, "tried_at": now.isoformat(), "outlived": outlived}
    return request


def read_count(request: Mapping[str, Any]) -> int:
    return int((request.get(RECOVERIES) or {}).get("count", 0))


def has_its_turn(request: Mapping[str, Any], on_trial: Iterable[int]) -> bool:
    """Whether a job that would be claimed with this request may be, beside the suspects that are on trial now."""
    counts = [*on_trial, read_count(request)]
    return counts[-1] < SUSPECT or len(counts) <= TOGETHER.get(max(counts), 1)


def list_on_trial(connection: Connection, now: datetime, trial_s: float) -> list[int]:
    """The counts of the suspects whose trial goes on; a row that can't be read is none of them."""
    table = oma_jobs.c
    raw = type_coerce(table.request, Text)
    query = select(raw).where(and_(table.state == JobState.RUNNING.value, table.lease_until >= now))
    found: list[int] = []
    for text in connection.execute(query).scalars():
        try:
            request = json.loads(text)
            if read_count(request) >= SUSPECT and now < _end_of_trial(request[RECOVERIES], trial_s):
                found.append(read_count(request))
        except UNREADABLE:
            continue
    return found


def _end_of_trial(last: Mapping[str, Any], trial_s: float) -> datetime:
    """Without an end where nobody kept when it began: such a death counts."""
    tried_at = last.get("tried_at")
    if tried_at is None:
        return datetime.max.replace(tzinfo=UTC)
    return datetime.fromisoformat(tried_at) + timedelta(seconds=trial_s * 2 ** min(last.get("outlived", 0), LONGEST))
