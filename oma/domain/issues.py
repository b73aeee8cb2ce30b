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
CANCELLED: Final = "cancelled"
"""The kind of the issue of a run that a person stopped where it can only go forward; resuming the run settles it."""
RESUMED: Final = "RESUMED"
"""How such an issue ends."""
UNBELIEVABLE: Final = "unbelievable_journal"
"""The kind of the issue of a run whose own rows can't be read, or can't be true."""
INTERNAL: Final = "internal_error"
"""The kind of the issue of a run that met a fault of the daemon itself."""
VOLUME_GONE: Final = "volume_gone"
"""The kind of the issue about a volume that is nowhere any more, and that needed no revert in its run."""
UNDONE: Final = "UNDONE"
"""How a run's own issues end when it went back and every volume is proven to be where it belongs."""
MOOT: Final = "MOOT"
"""How an issue about the world ends: its cause is gone."""
FOREIGN_MARKED: Final = "foreign_marker"
"""Somebody else's marker is on a volume; whoever has taken it off may say so, or just run the clean-up again."""
WORLD_KINDS: Final = frozenset({DESTROYED_VM_HOLDS_VOLUME, FOREIGN_MARKED})
"""Kinds of issues that are about the world, not about a run: a guard refuses while they hold, and a later plan that no
longer finds their cause closes them."""
FAILOVER_STUCK: Final = "failover_stuck"
JOB_STUCK: Final = "job_stuck"
DATABASE_OLDER: Final = "database_older_than_world"
"""An older copy of the database was restored; `oma db accept-restore` closes it."""
RESTORED: Final = "restored_database"
"""Of one run that such a copy had in flight: a person has looked, and says that it may go on."""
WATCHED_KINDS: Final = frozenset({FAILOVER_STUCK, JOB_STUCK})
"""Kinds that the watcher opens, and closes once their cause is gone; they recommend something and block nothing."""
SELF_CLOSING_KINDS: Final = WORLD_KINDS | WATCHED_KINDS | {DATABASE_OLDER}
"""Kinds that no run waits for: whoever opened them closes them."""


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
