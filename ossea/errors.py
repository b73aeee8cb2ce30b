"""What a call to CloudStack can end in besides an answer, and what each ending says about the world.

Sources: CloudStack `ApiErrorCode` (error codes), `ApiServlet` (HTTP status equals the error code),
`ApiServer.handleRequest` (401 for anything that it cannot verify), `ApiRateLimitServiceImpl` (429 and its text).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final


class ErrorKind(StrEnum):
    """The class of an error; a caller decides by this, never by texts."""

    REFUSED = "refused"
    """A definite no: the parameters or preconditions were rejected and nothing was changed or queued."""
    FAILED = "failed"
    """CloudStack's own error; what was changed before it is unknown."""
    UNAUTHORIZED = "unauthorized"
    """401: bad signature, expired, unknown key, disabled user or unknown command; nothing was changed."""
    THROTTLED = "throttled"
    """429: not executed; `retry_after_s` says when to come back."""
    UNAVAILABLE = "unavailable"
    """503 and 534: maintenance, starting up, or a resource that is away."""
    NO_ANSWER = "no_answer"
    """The request may have arrived; the answer was lost or late."""
    NOT_SENT = "not_sent"
    """The request certainly did not arrive: no connection, or stopped before it was sent."""
    BROKEN_ANSWER = "broken_answer"
    """Something answered, but not in CloudStack's protocol; the request may have been executed."""


class CloudStackError(Exception):
    """A call that did not succeed; `text` is CloudStack's own where it sent one, and never holds a credential."""

    def __init__(
        self,
        kind: ErrorKind,
        command: str,
        text: str,
        *,
        errorcode: int | None = None,
        cserrorcode: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{command}: {text}")
        self.kind = kind
        self.command = command
        self.text = text
        self.errorcode = errorcode
        """From CloudStack's envelope; None where the answer was no envelope or there was none."""
        self.cserrorcode = cserrorcode
        self.retry_after_s = retry_after_s

    @property
    def changed_nothing(self) -> bool:
        """Whether it is certain that the call had no effect."""
        if self.kind is ErrorKind.UNAVAILABLE:
            return self.errorcode == SERVICE_UNAVAILABLE
        return self.kind in _WITHOUT_EFFECT

    @property
    def entity_unknown(self) -> bool:
        """Whether CloudStack says that an id in the parameters names nothing (`ParamProcessWorker`)."""
        return self.errorcode == PARAM_ERROR and "entity does not exist" in self.text

    def says_in_use(self, job_id: str) -> bool:
        """Whether the `customjobid` was rejected because a job of that id exists (`ApiServer`; 431, newer 530)."""
        return self.errorcode in (PARAM_ERROR, INTERNAL_ERROR) and _names_existing(self.text, job_id)


class Expired(CloudStackError):
    """The caller's own time for the call had passed before it was sent; sending it again would be in vain."""

    def __init__(self, command: str, text: str) -> None:
        super().__init__(ErrorKind.NOT_SENT, command, text)


UNAUTHORIZED: Final = 401
THROTTLED: Final = 429
PARAM_ERROR: Final = 431
SERVICE_UNAVAILABLE: Final = 503
INTERNAL_ERROR: Final = 530
RESOURCE_UNAVAILABLE: Final = 534

_WITHOUT_EFFECT: Final = frozenset(
    {ErrorKind.REFUSED, ErrorKind.UNAUTHORIZED, ErrorKind.THROTTLED, ErrorKind.NOT_SENT},
)

_KIND_BY_CODE: Final[Mapping[int, ErrorKind]] = {
    UNAUTHORIZED: ErrorKind.UNAUTHORIZED,
    405: ErrorKind.REFUSED,  # method not allowed: a server that wants POST
    THROTTLED: ErrorKind.THROTTLED,
    430: ErrorKind.REFUSED,  # malformed parameter
    PARAM_ERROR: ErrorKind.REFUSED,
    432: ErrorKind.REFUSED,  # unsupported action
    SERVICE_UNAVAILABLE: ErrorKind.UNAVAILABLE,
    531: ErrorKind.REFUSED,  # account: no permission
    532: ErrorKind.REFUSED,  # account: resource limit
    RESOURCE_UNAVAILABLE: ErrorKind.UNAVAILABLE,
    536: ErrorKind.REFUSED,  # resource in use
    537: ErrorKind.REFUSED,  # network rule conflict
}

_RETRY_AFTER_MS = re.compile(r"retry after \[?(\d+)\]? ms", re.IGNORECASE)


def kind_of(errorcode: int) -> ErrorKind:
    """The class of an error code; one that is not known to be a definite no is `FAILED`."""
    return _KIND_BY_CODE.get(errorcode, ErrorKind.FAILED)


def build_answer_error(command: str, http_status: int, envelope: Mapping[str, Any]) -> CloudStackError:
    """The error that CloudStack sent in an envelope of its own."""
    errorcode = int_or_none(envelope.get("errorcode")) or http_status
    text = str(envelope.get("errortext") or f"HTTP {http_status} without an error text")
    return CloudStackError(
        kind_of(errorcode),
        command,
        text,
        errorcode=errorcode,
        cserrorcode=int_or_none(envelope.get("cserrorcode")),
        retry_after_s=_retry_after(text) if errorcode == THROTTLED else None,
    )


def build_foreign_error(command: str, http_status: int, headers: Mapping[str, str], problem: str) -> CloudStackError:
    """The error for an answer outside the protocol: a proxy's page, a server that is starting, a wrong address.

    Only a status that forbids execution by its own meaning (401, 429) counts as "nothing changed".
    """
    kinds = {
        UNAUTHORIZED: ErrorKind.UNAUTHORIZED,
        THROTTLED: ErrorKind.THROTTLED,
        SERVICE_UNAVAILABLE: ErrorKind.UNAVAILABLE,
    }
    retry_after = headers.get("Retry-After", "")
    return CloudStackError(
        kinds.get(http_status, ErrorKind.BROKEN_ANSWER),
        command,
        f"HTTP {http_status}: {problem}",
        retry_after_s=float(retry_after) if retry_after.isdecimal() else None,
    )


def _retry_after(text: str) -> float | None:
    found = _RETRY_AFTER_MS.search(text)
    return int(found[1]) / 1000 if found else None


def _names_existing(text: str, entity_id: str) -> bool:
    return "already exists" in text and entity_id in text


def int_or_none(value: object) -> int | None:
    """A number of the protocol, which some versions send as a string; None for anything else."""
    try:
        return int(value) if isinstance(value, int | str) else None
    except ValueError:
        return None
