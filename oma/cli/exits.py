"""Exit codes of the contract, and which one a problem of the API stands for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import Any, Final


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    NEEDS_RESOLUTION = 5
    UNREACHABLE = 6
    NOT_ALLOWED = 7
    INTERRUPTED = 130
    """Ctrl-C, as shells report it; the run itself goes on in the daemon."""


EXIT_OF_CODE: Final[Mapping[str, Exit]] = {
    "vm_not_found": Exit.NOT_FOUND,
    "job_not_found": Exit.NOT_FOUND,
    "issue_not_found": Exit.NOT_FOUND,
    "not_found": Exit.NOT_FOUND,
    "invalid_request": Exit.USAGE,
    "idempotency_key_reused": Exit.USAGE,
    "ambiguous_vm_name": Exit.REFUSED,
    "cleanup_in_progress": Exit.REFUSED,
    "operation_in_progress": Exit.REFUSED,
    "live_failover": Exit.REFUSED,
    "test_failover_active": Exit.REFUSED,
    "foreign_marker": Exit.REFUSED,
    "volume_on_foreign_vm": Exit.REFUSED,
    "device_in_use": Exit.REFUSED,
    "volume_busy": Exit.REFUSED,
    "snapshot_missing": Exit.REFUSED,
    "snapshot_mismatch": Exit.REFUSED,
    "replicated_since_snapshot": Exit.REFUSED,
    "state_unknown": Exit.REFUSED,
    "nothing_to_clean": Exit.REFUSED,
    "plan_stale": Exit.REFUSED,
    "resolution_contradicted": Exit.REFUSED,
    "paused": Exit.REFUSED,
    "needs_resolution": Exit.NEEDS_RESOLUTION,
    "database_older_than_world": Exit.NEEDS_RESOLUTION,
    "shutting_down": Exit.UNREACHABLE,
    "cross_site": Exit.NOT_ALLOWED,
    "unauthorized": Exit.NOT_ALLOWED,
    "forbidden": Exit.NOT_ALLOWED,
}
EXIT_OF_STATUS: Final[Mapping[int, Exit]] = {
    401: Exit.NOT_ALLOWED,
    403: Exit.NOT_ALLOWED,
    404: Exit.NOT_FOUND,
    409: Exit.REFUSED,
    422: Exit.USAGE,
}
"""For codes that a newer daemon may have."""

MOST_SERIOUS_FIRST: Final = (
    Exit.NEEDS_RESOLUTION,
    Exit.FAILED,
    Exit.UNREACHABLE,
    Exit.NOT_ALLOWED,
    Exit.REFUSED,
    Exit.NOT_FOUND,
    Exit.USAGE,
    Exit.DONE,
)


def exit_of_problem(problem: Mapping[str, Any]) -> Exit:
    """A parked run names its issue and needs a person; other failures of a begun run have just failed."""
    if problem.get("issue_id"):
        return Exit.NEEDS_RESOLUTION
    known = EXIT_OF_CODE.get(str(problem.get("code", "")))
    if known is not None:
        return known
    status = problem.get("status")
    return EXIT_OF_STATUS.get(status, Exit.FAILED) if isinstance(status, int) else Exit.FAILED


def worst(codes: Iterable[Exit]) -> Exit:
    """The one code for several VMs: the most serious of theirs."""
    found = set(codes)
    return next((code for code in MOST_SERIOUS_FIRST if code in found), Exit.DONE)


class CommandFailed(Exception):
    """A command of this machine could not be done; `next_step` says what to do about it."""

    def __init__(self, sentence: str, next_step: str) -> None:
        super().__init__(sentence)
        self.next_step = next_step
