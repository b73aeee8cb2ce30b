"""An issue: something uncertain that only a person can settle, with what was observed and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from oma.domain.states import IssueState


class Severity(StrEnum):
    CRITICAL = "critical"
    STANDARD = "standard"
    OTHER = "other"


FORCED: Final = "FORCED"
"""The resolution of an issue that a person passed by `force`; what it was about is tracked as a leak."""

SLA: Final[dict[Severity, timedelta]] = {
    Severity.CRITICAL: timedelta(hours=4),
    Severity.STANDARD: timedelta(hours=24),
    Severity.OTHER: timedelta(hours=72),
}


DESTROYED_VM_HOLDS_VOLUME: Final = "destroyed_vm_holds_volume"
MOOT: Final = "MOOT"
"""How an issue about the world ends: its cause is gone."""
WORLD_KINDS: Final = frozenset({DESTROYED_VM_HOLDS_VOLUME})
"""Kinds of issues that are about the world, not about a run: a guard refuses while they hold, and a later plan that no
longer finds their cause closes them."""


@dataclass(frozen=True, slots=True)
class Issue:
    """A row of `oma_issues`. `cause` is unique among open issues: one issue per cause."""

    id: str
    cause: str
    job_id: str | None
    action_id: str | None
    context_id: str | None
    vm_name: str
    kind: str
    code: str
    severity: Severity
    state: IssueState
    title: str
    target: dict[str, Any]
    evidence: dict[str, Any]
    error: dict[str, Any] | None
    guidance: tuple[str, ...]
    opened_at: datetime
    due_at: datetime
    owner: str | None = None
    resolved_at: datetime | None = None
    resolution: str | None = None
    notes: str | None = None
    actor: str | None = None


def due_time(severity: Severity, opened_at: datetime) -> datetime:
    return opened_at + SLA[severity]
