"""What a call to the Volume Daemon can end in besides an answer."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class ErrorKind(StrEnum):
    """What an error says about the world; callers decide by this, never by texts."""

    REFUSED = "refused"
    """A definite no: nothing was changed."""
    FAILED = "failed"
    """An error that does not say whether anything was changed."""
    NO_ANSWER = "no_answer"
    """The request may have arrived; the answer was lost or late."""
    NOT_SENT = "not_sent"
    """The request certainly did not arrive."""
    BROKEN_ANSWER = "broken_answer"
    """Something answered, but not in the daemon's protocol."""


class VolumeDaemonError(Exception):
    """A call that did not succeed; `code` is the problem document's, `text` its words."""

    def __init__(
        self,
        kind: ErrorKind,
        code: str,
        text: str,
        *,
        status: int | None = None,
        fields: Mapping[str, Any] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(f"{code}: {text}")
        self.kind = kind
        self.code = code
        self.text = text
        self.status = status
        self.fields = dict(fields or {})
        self.retry_after_s = retry_after_s
