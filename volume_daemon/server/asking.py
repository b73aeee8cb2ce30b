"""Questions to CloudStack while nothing is under way there: a silent one is waited for, as long as that makes sense."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from ossea.errors import CloudStackError
from volume_daemon.models import FaultKind
from volume_daemon.server.cloud import DEFINITE, submit_error
from volume_daemon.server.live import Live
from volume_daemon.server.pauses import Patience
from volume_daemon.server.withdrawal import Stopped

T = TypeVar("T")


async def wait_out(live: Live, error: CloudStackError, patience: Patience) -> bool:
    """Before CloudStack is asked once more, nothing being under way.

    False: it refuses, takes us for nobody, or has been silent for too long.
    """
    live.waiting_for = f"CloudStack: {error.text}"
    live.waits += 1
    return error.kind not in DEFINITE and await patience.pause(error.retry_after_s or 0.0)


async def ask_patiently(live: Live, ask: Callable[[], Awaitable[T]], patience: Patience) -> T:
    """A question before anything is sent: a silent CloudStack is waited for, as long as that makes sense.

    Raises `Stopped`, and at once where it refuses, or takes us for nobody.
    """
    while True:
        try:
            answer = await ask()
        except CloudStackError as error:
            if not await wait_out(live, error, patience):
                raise Stopped(submit_error(error, FaultKind.REFUSED)) from None
        else:
            live.waiting_for = None
            return answer
