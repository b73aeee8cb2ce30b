"""What a state is called on the page, and the tone that its badge carries; a colour never stands without its word."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from oma.domain.states import ActionState, JobState, Phase, Replica, StepStatus

KIBI: Final = 1024
SHOWN_WITH_TENTHS_S: Final = 9.95

PHASE_TITLES: Final[dict[Phase, str]] = {
    Phase.ANALYZE: "Analyze",
    Phase.DETACH: "Detach",
    Phase.SNAPSHOTS: "Revert and delete snapshots",
    Phase.REATTACH: "Reattach to the OMA",
    Phase.RESET: "Reset the VM's state",
}


@dataclass(frozen=True, slots=True)
class Badge:
    """`tone` is one of good, busy, warn, bad, calm; the style sheet gives each a colour and a shape."""

    tone: str
    word: str


CONTEXT_BADGES: Final[dict[str, Badge]] = {
    "discovered": Badge("calm", "discovered"),
    "replicating": Badge("busy", "replicating"),
    "ready_for_failover": Badge("good", "ready for failover"),
    "failed_over_test": Badge("busy", "failed over (test)"),
    "failed_over_live": Badge("busy", "failed over (live)"),
    "completed": Badge("good", "completed"),
    "failed": Badge("bad", "failed"),
    "cleanup_required": Badge("warn", "clean-up required"),
}

JOB_BADGES: Final[dict[JobState, Badge]] = {
    JobState.QUEUED: Badge("calm", "queued"),
    JobState.RUNNING: Badge("busy", "running"),
    JobState.PARKED: Badge("warn", "parked: needs a person"),
    JobState.COMPLETED: Badge("good", "completed"),
    JobState.FAILED: Badge("bad", "failed"),
    JobState.CANCELLED: Badge("calm", "cancelled"),
}

STEP_BADGES: Final[dict[StepStatus, Badge]] = {
    StepStatus.RUNNING: Badge("busy", "running"),
    StepStatus.COMPLETED: Badge("good", "completed"),
    StepStatus.FAILED: Badge("bad", "failed"),
    StepStatus.SKIPPED: Badge("calm", "skipped"),
}

ACTION_BADGES: Final[dict[ActionState, Badge]] = {
    ActionState.PLANNED: Badge("calm", "planned"),
    ActionState.STARTED: Badge("busy", "started"),
    ActionState.EXECUTED: Badge("good", "executed"),
    ActionState.EXECUTION_FAILED: Badge("bad", "failed"),
    ActionState.ROLLED_BACK: Badge("calm", "rolled back"),
    ActionState.ROLLBACK_FAILED: Badge("bad", "roll-back failed"),
    ActionState.SKIPPED: Badge("calm", "skipped"),
    ActionState.MANUAL_MARKED_AS_EXECUTED: Badge("good", "executed (said by a person)"),
    ActionState.MANUAL_MARKED_AS_ROLLED_BACK: Badge("calm", "rolled back (said by a person)"),
}

REPLICA_BADGES: Final[dict[str, Badge]] = {
    Replica.READY.value: Badge("good", "replica ready"),
    Replica.RESYNC_REQUIRED.value: Badge("warn", "replica needs a full resync"),
    Replica.UNKNOWN.value: Badge("warn", "replica unknown"),
}


STEP_NUMBER: Final = re.compile(r"^\d+\. ")


def unnumbered(steps: Iterable[str]) -> tuple[str, ...]:
    """Steps for a list that numbers them itself."""
    return tuple(STEP_NUMBER.sub("", step) for step in steps)


COMMAND: Final = re.compile(r"(?<=: )(?:oma|cs|curl|systemctl) \S.*$")


def split_command(sentence: str) -> tuple[str, str]:
    """The sentence up to the command that ends it, and that command; empty where it ends with none."""
    found = COMMAND.search(sentence)
    return (sentence, "") if found is None else (sentence[: found.start()], found.group())


def badge_of_context(status: str) -> Badge:
    """An unknown status of an existing installation is shown as it stands."""
    return CONTEXT_BADGES.get(status, Badge("calm", status or "no status"))


def size_words(size_bytes: int) -> str:
    """Binary units, as CloudStack and the OMA show disks."""
    size, unit = float(size_bytes), "B"
    for bigger in ("KiB", "MiB", "GiB", "TiB"):
        if size < KIBI:
            break
        size, unit = size / KIBI, bigger
    return f"{size:.1f}".removesuffix(".0") + f" {unit}"


def duration_words(seconds: float | None) -> str:
    """Short: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`; empty where there is none."""
    if seconds is None:
        return ""
    if seconds < SHOWN_WITH_TENTHS_S:
        return f"{max(seconds, 0.0):.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    hours, rest_min = divmod(minutes, 60)
    if hours:
        return f"{hours} h {rest_min:02d} min"
    return f"{minutes} min {rest_s:02d} s" if minutes else f"{rest_s} s"


def time_words(at: datetime | None) -> str:
    """UTC to the second, readable; the full time stands in the element's `datetime`."""
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S UTC")
