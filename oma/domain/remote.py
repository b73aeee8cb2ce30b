"""What calls to other systems come to: how they go wrong, where they stand, what became of an id that was given up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from oma.domain.actions import Upstream


class Fault(StrEnum):
    """How a call to another system went wrong; the retry class of the whole product rests on it."""

    REFUSED = "refused"
    """A definite no: nothing changed (CloudStack 431)."""
    FAILED = "failed"
    """An error answer that does not say whether anything changed."""
    NO_ANSWER = "no_answer"
    """Unreachable or too late; the call may have arrived."""
    NOT_SENT = "not_sent"
    """It certainly did not arrive."""
    BROKEN_ANSWER = "broken_answer"
    """Something answered, but not in the protocol."""


OUT_OF_TIME = "expired"
"""The code of a call that was not made, since its own time had passed: of the other system that tells nothing."""


class UpstreamError(Exception):
    """Another system refused, broke or stayed silent; `upstream` holds its own code and words.

    `retry_after_s`: it said when it wants to hear of us again. `spent`: the client below has tried again already, or
    knows that it would be in vain.
    """

    def __init__(
        self, fault: Fault, upstream: Upstream, *, retry_after_s: float | None = None, spent: bool = False
    ) -> None:
        super().__init__(f"{upstream.system}: {upstream.text}")
        self.fault = fault
        self.upstream = upstream
        self.retry_after_s = retry_after_s
        self.spent = spent


class RemoteStatus(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    """Failed, and the other side says that nothing was changed."""
    FAILED = "failed"
    """Failed; what was changed is unknown."""
    ABSENT = "absent"
    """The other side does not know this id: the call never arrived (while its memory reaches that far)."""
    UNTRACEABLE = "untraceable"
    """The other side gives calls ids of its own: whether this one arrived cannot be asked by its id."""


class Burn(StrEnum):
    """What became of the id of a call that is given up."""

    SPENT = "spent"
    """It is used up: the call can never run, whenever it arrives."""
    ARRIVED = "arrived"
    """The call came in before: it is followed to its end."""
    UNPROVEN = "unproven"
    """The other side takes no ids of ours, or does not let us spend one: the call may arrive until it expires."""


@dataclass(frozen=True, slots=True)
class RemoteOutcome:
    """Where an asynchronous call stands on the other side."""

    status: RemoteStatus
    upstream: Upstream | None = None
    detail: Mapping[str, Any] | None = None
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class VolumeOperation:
    """An operation of the Volume Daemon on one volume, whoever asked for it."""

    id: str
    type: str
    """`attach`, `detach` …, in the Volume Daemon's words."""
    created_at: datetime
