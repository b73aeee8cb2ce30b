"""What a run left behind at a person's word: a thing that somebody has to look after, tracked until it is gone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class LeakKind(StrEnum):
    """The four passes of `force` (section 8 of the safety rules); there is no fifth. And what `RESYNC` leaves away, and
    what could not be tidied up.
    """

    FORCED_STOP = "forced_stop"
    SNAPSHOT_KEPT = "snapshot_kept"
    TEST_VM_KEPT = "test_vm_kept"
    EXPORT_MISSING = "export_missing"
    VOLUME_GONE = "volume_gone"
    """CloudStack no longer lists it, and a person gave its content up."""
    MARKER_KEPT = "marker_kept"
    """Of an ended run; nobody gave a word for it."""


class LeakState(StrEnum):
    OPEN = "open"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Leak:
    """A row of `oma_leaks`. `sentence` says what is left and what to do with it; `reason` is the person's own."""

    id: str
    context_id: str
    vm_name: str
    job_id: str
    kind: LeakKind
    target: dict[str, Any]
    sentence: str
    reason: str
    since: datetime
    state: LeakState = LeakState.OPEN

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind.value,
            "target": self.target,
            "sentence": self.sentence,
            "reason": self.reason,
            "since": self.since.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        }
