"""The changes of the existing records: tracking cleared, the VM reset, its former status put back."""

from __future__ import annotations

from oma.domain.changes import RecordsReset, StatusRestored, TrackingCleared
from oma.domain.errors import ConcurrentChange
from oma.domain.events import EventType
from oma.domain.records import CLEANUP_REQUIRED
from oma.domain.states import LogLevel, Phase
from oma.store import contexts, failovers, foreign_joblog, volumes
from oma.store.events import Draft
from oma.store.writing import Writing


def clear_tracking(writing: Writing, change: TrackingCleared) -> Draft:
    """In all three places at once; the event keeps the ids that stood there."""
    _check_context(writing, change.context_id)
    former = volumes.clear_tracking(writing.connection, change.context_id, change.volume_ids, writing.at)
    failovers.forget_snapshots(writing.connection, change.context_id, change.snapshot_ids, writing.at)
    return Draft(
        EventType.TRACKING_CLEARED,
        change.sentence,
        {"volume_ids": list(change.volume_ids), "snapshot_ids": list(change.snapshot_ids), "former": former},
        phase=Phase.SNAPSHOTS,
    )


def reset_records(writing: Writing, change: RecordsReset) -> Draft:
    """Guarded by the status, the current job and the open failovers that were observed."""
    _check_context(writing, change.context_id)
    connection, at = writing.connection, writing.at
    status, current_job_id = contexts.lock_context(connection, change.context_id)
    if status != change.observed_status:
        raise ConcurrentChange(f"the status of {change.context_id} is {status}, no longer {change.observed_status}")
    if (current_job_id or None) != (change.observed_job_id or None):
        raise ConcurrentChange(
            f"the current job of {change.context_id} is {current_job_id}, no longer {change.observed_job_id}"
        )
    reason = f"ended by the clean-up job {writing.job_id}"
    failovers.fail_open_failovers(connection, change.context_id, change.failover_ids, reason, at)
    foreign_joblog.fail_open_joblog(connection, change.joblog_ids, reason, at)
    volumes.mark_attached(connection, change.context_id, change.volume_ids, at)
    # A mapping that was made anew when its volume came home may remember a snapshot whose tracking was cleared before.
    volumes.clear_mappings(connection, change.volume_ids)
    contexts.set_status(
        connection,
        change.context_id,
        change.new_status,
        at,
        current_job_id=None,
        last_operation_summary=change.summary,
    )
    return Draft(
        EventType.RECORDS_RESET,
        change.sentence,
        {
            "status": change.new_status,
            "failover_ids": list(change.failover_ids),
            "joblog_ids": list(change.joblog_ids),
            "volume_ids": list(change.volume_ids),
        },
        phase=Phase.RESET,
    )


def restore_status(writing: Writing, change: StatusRestored) -> Draft:
    """Where somebody else set another status meanwhile, theirs stays, and the event says so."""
    _check_context(writing, change.context_id)
    locked = contexts.find_locked(writing.connection, change.context_id)
    found = locked[0] if locked else "gone"
    restored = found == CLEANUP_REQUIRED
    if restored:
        contexts.set_status(writing.connection, change.context_id, change.status, writing.at)
    return Draft(
        EventType.STATUS_RESTORED,
        change.sentence,
        {"status": change.status, "restored": restored, "found": found},
        level=LogLevel.INFO if restored else LogLevel.WARN,
    )


def _check_context(writing: Writing, context_id: str) -> None:
    """A job writes the records of its own VM only."""
    if context_id != writing.context_id:
        raise ConcurrentChange(f"job {writing.job_id} is about {writing.context_id}, not about {context_id}")
