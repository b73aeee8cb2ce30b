"""A clean-up job as it is asked for, journaled, and shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from oma.domain.actions import Action
from oma.domain.plan import Plan
from oma.domain.states import PHASES, JobState, Phase, StepStatus
from oma.domain.undoing import CancelAsked, Undoing
from oma.domain.words import SILENT, Words

OPERATION = "failed-execution-cleanup"


def build_summary(job_id: str, state: JobState, at: datetime, error: Mapping[str, Any]) -> dict[str, Any]:
    """What the VM's records keep of a run that ended badly (`last_operation_summary`).

    It has no `completed_at`: that is the time of the last complete clean-up.
    """
    return {
        "operation": OPERATION,
        "status": state.value,
        "job_id": job_id,
        "ended_at": at.isoformat(),
        "reason": error["detail"],
        "replica": error["replica"],
        "next": error["next"],
    }


@dataclass(frozen=True, slots=True)
class CleanupRequest:
    """What was asked for, validated."""

    vm_name: str
    context_id: str | None = None
    dry_run: bool = False
    phases: tuple[Phase, ...] = PHASES
    expect_plan: str | None = None
    requested_by: str = "api"
    correlation_id: str = ""
    words: Words = SILENT

    def as_json(self) -> dict[str, Any]:
        return {
            "vm_name": self.vm_name,
            "context_id": self.context_id,
            "dry_run": self.dry_run,
            "phases": [phase.value for phase in self.phases],
            "expect_plan": self.expect_plan,
            "requested_by": self.requested_by,
            "correlation_id": self.correlation_id,
            "words": self.words.as_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> CleanupRequest:
        return cls(
            vm_name=data["vm_name"],
            context_id=data["context_id"],
            dry_run=data["dry_run"],
            phases=tuple(Phase(name) for name in data["phases"]),
            expect_plan=data["expect_plan"],
            requested_by=data["requested_by"],
            correlation_id=data["correlation_id"],
            words=Words.from_json(data["words"]) if "words" in data else SILENT,
        )


@dataclass(frozen=True, slots=True)
class Step:
    """A row of `job_steps`: one per phase, `seq` 1 to 5."""

    phase: Phase
    seq: int
    status: StepStatus
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error_message: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def duration_s(self) -> float | None:
        if self.started_at is None or self.completed_at is None:
            return None
        return (self.completed_at - self.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class Job:
    """A row of `oma_jobs`; `id` is also the JobLog's `job_tracking.id`."""

    id: str
    context_id: str
    vm_name: str
    state: JobState
    request: CleanupRequest
    plan: Plan
    plan_digest: str
    correlation_id: str
    requested_by: str
    created_at: datetime
    phase: Phase | None = None
    reverted: bool = False
    """Past the point of no return: a revert was sent."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    lease_owner: str | None = None
    lease_fence: int = 0
    cancel: CancelAsked | None = None
    """A person wants it to stop at its next safe point."""
    undoing: Undoing | None = None
    """It is on its way back."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one job. Every write names the fence; a higher one has replaced this."""

    job_id: str
    owner: str
    fence: int


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job with everything its runner needs, read in the transaction that claimed it."""

    lease: Lease
    job: Job
    steps: tuple[Step, ...]
    actions: tuple[Action, ...]
    recovered: bool
    """It had been begun before, by a holder that is gone."""
    recoveries: int = 0
    """Times in a row that it was taken over from a holder whose lease ran out, with nothing achieved in between."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A row of `log_events`."""

    id: int | str
    job_id: str
    phase: Phase | None
    level: str
    message: str
    attrs: dict[str, Any]
    at: datetime
