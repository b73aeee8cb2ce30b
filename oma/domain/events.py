"""What happened, as it is journaled, streamed and shown. Types are in the past tense and stable."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class EventType(StrEnum):
    JOB_QUEUED = "job_queued"
    JOB_STARTED = "job_started"
    JOB_RELEASED = "job_released"
    JOB_RESUMED = "job_resumed"
    JOB_PARKED = "job_parked"
    JOB_COMPLETED = "job_completed"
    JOB_FAILED = "job_failed"
    JOB_CANCELLED = "job_cancelled"
    CANCEL_ASKED = "cancel_asked"
    UNDOING_BEGUN = "undoing_begun"
    ACTION_ROLLED_BACK = "action_rolled_back"
    PLAN_SAVED = "plan_saved"
    STEP_STARTED = "step_started"
    STEP_COMPLETED = "step_completed"
    STEP_FAILED = "step_failed"
    STEP_SKIPPED = "step_skipped"
    ACTION_STARTED = "action_started"
    ACTION_SENT = "action_sent"
    ACTION_OVERDUE = "action_overdue"
    ACTION_EXECUTED = "action_executed"
    ACTION_FAILED = "action_failed"
    ACTION_SKIPPED = "action_skipped"
    LEAK_TRACKED = "leak_tracked"
    POINT_OF_NO_RETURN_PASSED = "point_of_no_return_passed"
    ISSUE_OPENED = "issue_opened"
    ISSUE_RESOLVED = "issue_resolved"
    TRACKING_CLEARED = "tracking_cleared"
    RECORDS_RESET = "records_reset"
    RESYNC_DEMANDED = "resync_demanded"
    STATUS_RESTORED = "status_restored"
    PAUSED = "paused"
    PAUSE_LIFTED = "pause_lifted"
    NOTED = "noted"


ENDING_EVENTS = frozenset(
    {EventType.JOB_PARKED, EventType.JOB_COMPLETED, EventType.JOB_FAILED, EventType.JOB_CANCELLED}
)


@dataclass(frozen=True, slots=True)
class Event:
    """A row of `oma_events`; `seq` grows and is the stream's `Last-Event-ID`."""

    seq: int
    at: datetime
    job_id: str | None
    context_id: str | None
    type: EventType
    sentence: str
    data: dict[str, Any] = field(default_factory=dict)
