"""Changes committed together: one guard for all of them, one handler each, then their events and JobLog lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy.engine import Connection

from oma.domain import changes
from oma.domain.events import Event
from oma.domain.jobs import Lease
from oma.store import cancelling, joblog, record_changes, resyncing, run_changes
from oma.store.events import Draft, record_events
from oma.store.leases import lock_leased_job
from oma.store.writing import Writing

HANDLERS: Final[dict[type, Callable[[Writing, Any], Draft]]] = {
    changes.PlanSaved: run_changes.save_plan,
    changes.StepStarted: run_changes.start_step,
    changes.StepEnded: run_changes.end_step,
    changes.ActionStarted: run_changes.start_action,
    changes.ActionSent: run_changes.mark_sent,
    changes.ActionSentAgain: run_changes.send_again,
    changes.ActionOverdue: run_changes.mark_overdue,
    changes.ActionEnded: run_changes.end_action,
    changes.ActionSkipped: run_changes.skip_action,
    changes.RevertEndSeen: run_changes.keep_revert_end,
    changes.LeakTracked: run_changes.track_leak,
    changes.PointOfNoReturnPassed: run_changes.pass_point_of_no_return,
    changes.IssueOpened: run_changes.open_issue,
    changes.Noted: run_changes.note,
    changes.TrackingCleared: record_changes.clear_tracking,
    changes.RecordsReset: record_changes.reset_records,
    changes.ResyncDemanded: resyncing.demand_resync,
    changes.StatusRestored: record_changes.restore_status,
    changes.JobEnded: run_changes.end_job,
    changes.JobReleased: run_changes.release_job,
    changes.UndoingBegun: cancelling.begin_undoing,
    changes.OwnIssuesClosed: cancelling.close_own_issues,
}


def apply_changes(connection: Connection, lease: Lease, wanted: Sequence[changes.Change], at: datetime) -> list[Event]:
    """Raises `LeaseLost` before anything is written, `ConcurrentChange` to undo everything that was."""
    row = lock_leased_job(connection, lease)
    writing = Writing(connection, lease.job_id, row["context_id"], row["vm_name"], at, row["requested_by"])
    drafts = [HANDLERS[type(change)](writing, change) for change in wanted]
    events = record_events(connection, lease.job_id, row["context_id"], drafts, at)
    joblog.add_lines(connection, lease.job_id, drafts, at)
    return events
