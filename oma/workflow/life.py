"""Whether a failover is alive: decided from its JobLog, never from its own row alone.

Source: existing installations leave `failover_jobs.status` at `pending` during nearly the whole failover.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oma.domain.evidence import GuardLimits
from oma.domain.records import FailoverRecord, VmRecords


@dataclass(frozen=True, slots=True)
class Life:
    """`finished`: it ended well, so what it made may be in use."""

    alive: bool
    finished: bool
    sentence: str


def failover_life(records: VmRecords, failover: FailoverRecord, now: datetime, limits: GuardLimits) -> Life:
    log = records.joblog_of(failover)
    if failover.status == "completed" or (log is not None and log.status == "completed"):
        return Life(alive=False, finished=True, sentence=f"Failover {failover.job_id} is recorded as completed.")
    if log is None:
        return Life(alive=False, finished=False, sentence="it has no JobLog row.")
    if log.status != "running":
        return Life(alive=False, finished=False, sentence=f"its JobLog row says {log.status}.")
    if log.last_activity_at is None:
        return Life(alive=False, finished=False, sentence="its JobLog row shows no step and no line.")
    age_s = (now - log.last_activity_at).total_seconds()
    if age_s < limits.alive_s:
        return Life(
            alive=True,
            finished=False,
            sentence=f"Failover {failover.job_id} wrote to its JobLog {max(age_s, 0):.0f} s ago.",
        )
    since = log.last_activity_at.isoformat(timespec="seconds").replace("+00:00", "Z")
    return Life(alive=False, finished=False, sentence=f"dead since {since}, its last sign of life.")
