"""What the journal writes, as values.

A list of changes is committed in ONE transaction together with the events that they make.

Every change but `JobQueued`, `JobResumed` and `JobCancelled` is guarded by the job's lease and fence: a stale one
writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from oma.domain.actions import Action
from oma.domain.issues import Issue
from oma.domain.leaks import Leak
from oma.domain.plan import Plan
from oma.domain.records import CLEANUP_REQUIRED
from oma.domain.states import ActionState, JobState, LogLevel, Phase, StepStatus
from oma.domain.undoing import CancelAsked, Undoing
from oma.domain.words import Words


@dataclass(frozen=True, slots=True)
class PlanSaved:
    """Phase 1 has judged again; the persisted plan is replaced by the current one."""

    plan: Plan
    sentence: str


@dataclass(frozen=True, slots=True)
class StepStarted:
    """One `job_steps` row per phase: a later attempt of the same phase sets the same row to running again."""

    phase: Phase
    sentence: str


@dataclass(frozen=True, slots=True)
class StepEnded:
    """`skipped` may come without a start. `line`: what the log says where the sentence stands there already."""

    phase: Phase
    status: StepStatus
    sentence: str
    metadata: dict[str, Any] = field(default_factory=dict)
    line: str | None = None


@dataclass(frozen=True, slots=True)
class ActionStarted:
    """The intent: committed before the call. Inserts the action, or starts it again with a higher attempt."""

    action: Action
    sentence: str


@dataclass(frozen=True, slots=True)
class ActionSent:
    """The other side's id for the call, stored as soon as it is known."""

    action_id: str
    remote_id: str
    sentence: str


@dataclass(frozen=True, slots=True)
class ActionSentAgain:
    """A call that certainly never ran is sent again under its own id; from now on it may arrive until `expires_at`."""

    action_id: str
    expires_at: datetime
    sentence: str


@dataclass(frozen=True, slots=True)
class ActionOverdue:
    """The other side takes longer than agreed; it is followed to its end."""

    action_id: str
    error: dict[str, Any]
    sentence: str


@dataclass(frozen=True, slots=True)
class ActionEnded:
    """The proven outcome, or the failure with the other side's own words."""

    action_id: str
    state: ActionState
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class LeakTracked:
    """Something that `force` passed and that is left behind; stands beside the end of the action that it is about."""

    leak: Leak
    sentence: str


@dataclass(frozen=True, slots=True)
class RevertEndSeen:
    """The own job of a revert that a person settled by a word has ended; `evidence` is all of the action's."""

    action_id: str
    evidence: dict[str, Any]
    sentence: str


@dataclass(frozen=True, slots=True)
class ActionSkipped:
    """An action that need not be done, with the evidence; inserted in its end state."""

    action: Action
    sentence: str


@dataclass(frozen=True, slots=True)
class PointOfNoReturnPassed:
    sentence: str


@dataclass(frozen=True, slots=True)
class IssueOpened:
    """Inserts the issue; an open one of the same `cause` is updated instead."""

    issue: Issue
    sentence: str


@dataclass(frozen=True, slots=True)
class Noted:
    """A line for the JobLog and the stream that changes no state."""

    level: LogLevel
    message: str
    phase: Phase | None = None
    attrs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrackingCleared:
    """Snapshot tracking of these volumes emptied in all three places."""

    context_id: str
    volume_ids: tuple[str, ...]
    snapshot_ids: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class RecordsReset:
    """Phase 5's records, guarded by the status and the `current_job_id` that were observed.

    Raises `ConcurrentChange` at commit when somebody else wrote meanwhile; then nothing of the transaction stands.
    """

    context_id: str
    observed_job_id: str | None
    new_status: str
    failover_ids: tuple[int, ...]
    joblog_ids: tuple[str, ...]
    volume_ids: tuple[str, ...]
    summary: dict[str, Any]
    sentence: str
    observed_status: str = CLEANUP_REQUIRED
    """Another one only after a person has said that it may be written over."""


@dataclass(frozen=True, slots=True)
class ResyncDemanded:
    """The next replication copies these volumes whole: their change ids are emptied, and the history says why."""

    context_id: str
    volume_ids: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, slots=True)
class StatusRestored:
    """The VM's former status put back, because nothing was changed; only where it still is `cleanup_required`."""

    context_id: str
    status: str
    sentence: str


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The run's end: parked, completed, failed or cancelled. Also ends the `job_tracking` row.

    Parked keeps the VM's place (no second run); the others give it free. The lease is given back.
    `summary`: what the VM's `last_operation_summary` says from now on; None leaves it alone. The time of the last
    complete clean-up (`completed_at`) stays in it.
    """

    state: JobState
    sentence: str
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class UndoingBegun:
    """From here on this run only goes back, in whatever process: every volume that it detached comes home."""

    undoing: Undoing
    sentence: str


@dataclass(frozen=True, slots=True)
class OwnIssuesClosed:
    """What they were uncertain about is proven now: the open issues of this very job are resolved."""

    sentence: str


@dataclass(frozen=True, slots=True)
class JobReleased:
    """The daemon stops: the job goes back to the queue, to be gone on with by whoever claims it next."""

    sentence: str


Change = (
    PlanSaved
    | StepStarted
    | StepEnded
    | ActionStarted
    | ActionSent
    | ActionSentAgain
    | ActionOverdue
    | ActionEnded
    | ActionSkipped
    | RevertEndSeen
    | LeakTracked
    | PointOfNoReturnPassed
    | IssueOpened
    | Noted
    | TrackingCleared
    | RecordsReset
    | ResyncDemanded
    | StatusRestored
    | JobEnded
    | JobReleased
    | UndoingBegun
    | OwnIssuesClosed
)


@dataclass(frozen=True, slots=True)
class JobQueued:
    """A new job: the one-per-VM insert, the JobLog row, the handshake on `current_status`, in one transaction."""

    job_id: str
    plan: Plan
    request: dict[str, Any]
    request_hash: str | None
    idempotency_key: str | None
    correlation_id: str
    requested_by: str
    at: datetime
    sentence: str


@dataclass(frozen=True, slots=True)
class JobResumed:
    """A parked job goes back to the queue; with `words.force` the open issues that `force` passes are resolved.

    The failed actions that may be done again are released for another attempt; everything else stays as it was.
    """

    job_id: str
    actor: str
    words: Words
    idempotency_key: str | None
    at: datetime
    sentence: str


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """A person wants the run stopped between its actions; where it never began, it ends in this transaction.

    A parked one that can still turn back goes to the queue for that; its open issues stay until it has.
    """

    job_id: str
    asked: CancelAsked
    sentence: str
