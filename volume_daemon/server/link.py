"""CloudStack as the daemon's parts hold it: asked for at each call, for at the start there may be none yet."""

from __future__ import annotations

from collections.abc import Callable

from ossea.client import CloudStack
from ossea.errors import CloudStackError, ErrorKind

Clouds = Callable[[], CloudStack]
"""The client to ask now. Raises `CloudStackError` (not sent) where there is none."""


class CloudLink:
    """Empty until the endpoint is known; `reason` says why."""

    def __init__(self) -> None:
        self._client: CloudStack | None = None
        self.reason = "CloudStack's endpoint has not been looked for yet."

    def __call__(self) -> CloudStack:
        if self._client is None:
            raise CloudStackError(ErrorKind.NOT_SENT, "cloudstack", self.reason)
        return self._client

    def take(self, client: CloudStack) -> None:
        self._client = client
