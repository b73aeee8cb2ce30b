"""Live failovers, as far as the records alone tell of them."""

from __future__ import annotations

from typing import Final

from oma.domain.records import FailoverRecord, VmRecords

STARTUP_STEP: Final = "vm-startup-and-validation"


def judged_live_failovers(records: VmRecords) -> tuple[FailoverRecord, ...]:
    """The newest failover if it is no test, and every older one that never ended: a reset would end it as failed."""
    newest = records.newest_failover
    return tuple(one for one in records.failovers if one.job_type != "test" and (one is newest or one.is_open))


def may_have_started(records: VmRecords, failover: FailoverRecord) -> str | None:
    """How the records tell that its VM was started, a part of a sentence; None where they don't."""
    log = records.joblog_of(failover)
    if log is not None and STARTUP_STEP in log.step_names:
        return f"reached {STARTUP_STEP}"
    if failover.status == "completed" or (log is not None and log.status == "completed"):
        return "completed"
    return None
