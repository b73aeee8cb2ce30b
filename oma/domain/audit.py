"""The audit: who had what done, and why. Append-only, each entry chained to the one before it by its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

BEGINNING: Final = "0" * 64
"""What stands as the hash before the first entry."""


class AuditAction(StrEnum):
    REFUSED = "refused"
    DRY_RUN = "dry_run"
    RUN_BEGUN = "run_begun"
    WORD_SPOKEN = "word_spoken"
    RUN_RESUMED = "run_resumed"
    ISSUE_RESOLVED = "issue_resolved"
    RUN_ENDED = "run_ended"
    RUN_PARKED = "run_parked"
    CANCEL_ASKED = "cancel_asked"
    UNDOING_BEGUN = "undoing_begun"
    PAUSED = "paused"
    PAUSE_LIFTED = "pause_lifted"
    DATABASE_OLDER = "database_older"
    RESTORE_ACCEPTED = "restore_accepted"


@dataclass(frozen=True, slots=True)
class AuditDraft:
    """An entry without its place in the chain.

    `decision` is one word: a refusal's code, a job's state, the word that was spoken, an issue's resolution.
    """

    at: datetime
    actor: str
    action: AuditAction
    decision: str
    vm_name: str
    context_id: str | None = None
    job_id: str | None = None
    words: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Everything that the hash covers besides `seq` and the predecessor; a time is RFC 3339 with microseconds."""
        return {
            "at": self.at.isoformat(timespec="microseconds"),
            "actor": self.actor,
            "action": self.action.value,
            "decision": self.decision,
            "context_id": self.context_id,
            "vm_name": self.vm_name,
            "job_id": self.job_id,
            "words": self.words,
            "reason": self.reason,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """A row of `oma_audit`."""

    seq: int
    draft: AuditDraft
    prev_hash: str
    hash: str

    @property
    def is_whole(self) -> bool:
        """Whether the entry still says what was hashed."""
        return self.hash == chain_hash(self.prev_hash, self.seq, self.draft)


def chain_hash(prev_hash: str, seq: int, draft: AuditDraft) -> str:
    """SHA-256 over the canonical JSON of the predecessor's hash and this row."""
    row = {"prev_hash": prev_hash, "seq": seq, **draft.as_json()}
    canonical = json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
