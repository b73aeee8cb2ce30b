"""The states that things may be in, and the tables of allowed transitions.

A transition that is not in a table is refused where it would be written: a guarded update that changes no row is an
error with a name.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """The five phases, by the names that stand in `job_steps.name`."""

    ANALYZE = "analyze-volume-state"
    DETACH = "detach-attached-volumes"
    SNAPSHOTS = "cleanup-snapshots"
    REATTACH = "reattach-all-volumes"
    RESET = "reset-vm-state"


PHASES: Final = tuple(Phase)


def phase_seq(phase: Phase) -> int:
    """The phase's place in the run, 1 to 5; it is the step's `seq`."""
    return PHASES.index(phase) + 1


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PARKED = "parked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


JOB_TRANSITIONS: Final[dict[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.PARKED, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.PARKED: frozenset({JobState.QUEUED, JobState.FAILED, JobState.CANCELLED}),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

ACTIVE_JOB_STATES: Final = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.PARKED})


class StepStatus(StrEnum):
    """What `job_steps.status` may say; existing installations know no "pending"."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"


class ActionState(StrEnum):
    PLANNED = "PLANNED"
    STARTED = "STARTED"
    EXECUTED = "EXECUTED"
    EXECUTION_FAILED = "EXECUTION_FAILED"
    ROLLED_BACK = "ROLLED_BACK"
    ROLLBACK_FAILED = "ROLLBACK_FAILED"
    SKIPPED = "SKIPPED"
    MANUAL_MARKED_AS_EXECUTED = "MANUAL_MARKED_AS_EXECUTED"
    MANUAL_MARKED_AS_ROLLED_BACK = "MANUAL_MARKED_AS_ROLLED_BACK"


ACTION_TRANSITIONS: Final[dict[ActionState, frozenset[ActionState]]] = {
    ActionState.PLANNED: frozenset({ActionState.STARTED, ActionState.SKIPPED}),
    ActionState.STARTED: frozenset(
        {
            ActionState.EXECUTED,
            ActionState.EXECUTION_FAILED,
            ActionState.ROLLED_BACK,
            ActionState.ROLLBACK_FAILED,
            ActionState.MANUAL_MARKED_AS_EXECUTED,
            ActionState.MANUAL_MARKED_AS_ROLLED_BACK,
            ActionState.SKIPPED,
        }
    ),
    ActionState.EXECUTION_FAILED: frozenset(
        {
            ActionState.PLANNED,
            ActionState.STARTED,
            ActionState.EXECUTED,
            ActionState.SKIPPED,
            ActionState.ROLLED_BACK,
            ActionState.MANUAL_MARKED_AS_EXECUTED,
            ActionState.MANUAL_MARKED_AS_ROLLED_BACK,
        }
    ),
    ActionState.EXECUTED: frozenset(
        {
            ActionState.ROLLED_BACK,
            ActionState.ROLLBACK_FAILED,
            ActionState.MANUAL_MARKED_AS_ROLLED_BACK,
            # A proven revert that somebody may have written over since: its disk is copied whole.
            ActionState.SKIPPED,
        }
    ),
    ActionState.ROLLBACK_FAILED: frozenset({ActionState.ROLLED_BACK, ActionState.MANUAL_MARKED_AS_ROLLED_BACK}),
    ActionState.ROLLED_BACK: frozenset({ActionState.STARTED, ActionState.SKIPPED}),
    ActionState.MANUAL_MARKED_AS_ROLLED_BACK: frozenset(
        {ActionState.STARTED, ActionState.SKIPPED, ActionState.ROLLED_BACK}
    ),
    ActionState.SKIPPED: frozenset(),
    ActionState.MANUAL_MARKED_AS_EXECUTED: frozenset(
        {ActionState.ROLLED_BACK, ActionState.ROLLBACK_FAILED, ActionState.SKIPPED}
    ),
}

DONE_ACTION_STATES: Final = frozenset(
    {ActionState.EXECUTED, ActionState.SKIPPED, ActionState.MANUAL_MARKED_AS_EXECUTED}
)


class VolumePlace(StrEnum):
    """Where a volume is, as far as CloudStack and the OMA let us say."""

    ON_OMA = "on OMA"
    ON_TEST_VM = "on test VM"
    ON_FOREIGN_VM = "on a foreign VM"
    DETACHED = "detached"
    MISSING = "missing"
    BUSY = "busy"
    UNKNOWN = "unknown"


class Replica(StrEnum):
    """The answer to the question that ends every run: is the replica good?"""

    READY = "ready"
    RESYNC_REQUIRED = "resync_required"
    UNKNOWN = "unknown"


class IssueState(StrEnum):
    OPEN = "open"
    RESOLVED = "resolved"


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"
