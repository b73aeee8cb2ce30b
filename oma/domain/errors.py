"""Errors with a stable code, from where they are raised to the JSON and the page.

A `Refusal` says that nothing was touched and why; an `OmaError` carries it to whoever asked.
HTTP statuses are not known here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """The stable codes of the contract, in the order in which refusals take precedence where it matters."""

    VM_NOT_FOUND = "vm_not_found"
    AMBIGUOUS_VM_NAME = "ambiguous_vm_name"
    CLEANUP_IN_PROGRESS = "cleanup_in_progress"
    NEEDS_RESOLUTION = "needs_resolution"
    FOREIGN_MARKER = "foreign_marker"
    LIVE_FAILOVER = "live_failover"
    TEST_FAILOVER_ACTIVE = "test_failover_active"
    OPERATION_IN_PROGRESS = "operation_in_progress"
    VOLUME_ON_FOREIGN_VM = "volume_on_foreign_vm"
    DEVICE_IN_USE = "device_in_use"
    VOLUME_BUSY = "volume_busy"
    SNAPSHOT_MISSING = "snapshot_missing"
    SNAPSHOT_MISMATCH = "snapshot_mismatch"
    REPLICATED_SINCE_SNAPSHOT = "replicated_since_snapshot"
    STATE_UNKNOWN = "state_unknown"
    NOTHING_TO_CLEAN = "nothing_to_clean"
    PLAN_STALE = "plan_stale"
    RESOLUTION_CONTRADICTED = "resolution_contradicted"
    JOB_NOT_FOUND = "job_not_found"
    ISSUE_NOT_FOUND = "issue_not_found"
    INVALID_REQUEST = "invalid_request"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    CROSS_SITE = "cross_site"
    CLEANUP_FAILED = "cleanup_failed"
    CLOUDSTACK_ERROR = "cloudstack_error"
    VOLUME_DAEMON_ERROR = "volume_daemon_error"
    CLOUDSTACK_TIMEOUT = "cloudstack_timeout"
    VOLUME_DAEMON_TIMEOUT = "volume_daemon_timeout"
    PAUSED = "paused"
    SHUTTING_DOWN = "shutting_down"
    DATABASE_UNAVAILABLE = "database_unavailable"
    DATABASE_OLDER_THAN_WORLD = "database_older_than_world"
    INTERNAL_ERROR = "internal_error"


TITLES: dict[Code, str] = {
    Code.VM_NOT_FOUND: "No such VM",
    Code.AMBIGUOUS_VM_NAME: "Several VMs carry this name",
    Code.CLEANUP_IN_PROGRESS: "A clean-up of this VM is running",
    Code.NEEDS_RESOLUTION: "An open issue has to be resolved first",
    Code.FOREIGN_MARKER: "Another installation marked these volumes",
    Code.LIVE_FAILOVER: "The VM was failed over for good",
    Code.TEST_FAILOVER_ACTIVE: "A finished test failover is in use",
    Code.OPERATION_IN_PROGRESS: "A replication, failover or rollback is running",
    Code.VOLUME_ON_FOREIGN_VM: "A volume hangs on another VM",
    Code.DEVICE_IN_USE: "A device is held open on the OMA",
    Code.VOLUME_BUSY: "A volume is in transition",
    Code.SNAPSHOT_MISSING: "A volume has no usable snapshot",
    Code.SNAPSHOT_MISMATCH: "A snapshot does not fit its volume",
    Code.REPLICATED_SINCE_SNAPSHOT: "The volume was replicated after its snapshot",
    Code.STATE_UNKNOWN: "The state could not be established",
    Code.NOTHING_TO_CLEAN: "There is nothing to clean up",
    Code.PLAN_STALE: "The plan is no longer current",
    Code.RESOLUTION_CONTRADICTED: "The world shows otherwise",
    Code.JOB_NOT_FOUND: "No such job",
    Code.ISSUE_NOT_FOUND: "No such issue",
    Code.INVALID_REQUEST: "The request is not valid",
    Code.IDEMPOTENCY_KEY_REUSED: "The idempotency key was used with another body",
    Code.CROSS_SITE: "Cross-site requests are refused",
    Code.CLEANUP_FAILED: "The clean-up stopped",
    Code.CLOUDSTACK_ERROR: "CloudStack answered with an error",
    Code.VOLUME_DAEMON_ERROR: "The Volume Daemon answered with an error",
    Code.CLOUDSTACK_TIMEOUT: "CloudStack did not answer in time",
    Code.VOLUME_DAEMON_TIMEOUT: "The Volume Daemon did not finish in time",
    Code.PAUSED: "The daemon is paused",
    Code.SHUTTING_DOWN: "The daemon is stopping",
    Code.DATABASE_UNAVAILABLE: "The database is not available",
    Code.DATABASE_OLDER_THAN_WORLD: "The database is older than the world",
    Code.INTERNAL_ERROR: "Something unexpected happened",
}


class RetryClass(StrEnum):
    """Whether asking again, unchanged, can help."""

    NEVER = "never"
    LATER = "later"
    AFTER_CHANGE = "after_change"


RETRY_LATER = frozenset(
    {
        Code.CLEANUP_IN_PROGRESS,
        Code.OPERATION_IN_PROGRESS,
        Code.VOLUME_BUSY,
        Code.STATE_UNKNOWN,
        Code.CLOUDSTACK_TIMEOUT,
        Code.VOLUME_DAEMON_TIMEOUT,
        Code.PAUSED,
        Code.SHUTTING_DOWN,
        Code.DATABASE_UNAVAILABLE,
    }
)
RETRY_NEVER = frozenset({Code.INVALID_REQUEST, Code.IDEMPOTENCY_KEY_REUSED, Code.CROSS_SITE, Code.VM_NOT_FOUND})


def retry_class(code: Code) -> RetryClass:
    if code in RETRY_LATER:
        return RetryClass.LATER
    if code in RETRY_NEVER:
        return RetryClass.NEVER
    return RetryClass.AFTER_CHANGE


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason why nothing is done: a sentence, its evidence, and what the operator does next."""

    code: Code
    sentence: str
    next_step: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "code": self.code.value,
            "detail": self.sentence,
            "next": self.next_step,
            "evidence": self.evidence,
        }


class OmaError(Exception):
    """An error that a user is told about.

    `fields` are merged into the problem document; they are JSON values and never hold secrets.
    """

    def __init__(self, code: Code, sentence: str, **fields: Any) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.fields = fields

    @property
    def title(self) -> str:
        return TITLES[self.code]


class Refused(OmaError):
    """The guards refused; nothing was touched. `refusals` lists all reasons, the first gives the code.

    `fields` may say more than the first reason's own `next`.
    """

    def __init__(self, refusals: tuple[Refusal, ...], **fields: Any) -> None:
        first = refusals[0]
        told = {
            "next": first.next_step,
            "evidence": first.evidence,
            "refusals": [refusal.as_json() for refusal in refusals],
        }
        super().__init__(first.code, first.sentence, **{**told, **fields})
        self.refusals = refusals


class CleanupFailed(OmaError):
    """A run that had begun did not end well; `fields` name job, phase, action, upstream, issue and guidance."""


class LeaseLost(Exception):
    """Somebody else holds this job now; whoever gets this stops at once and writes nothing more."""


class ConcurrentChange(Exception):
    """A guarded write found the row changed by somebody else."""
