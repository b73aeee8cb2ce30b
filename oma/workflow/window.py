"""The window after a revert's job has ended, during which the hypervisor may still be at it: no clock shortens it.

Source: section 5 of the safety rules. It is over when our clock says so, CloudStack's says so, and that much time has
passed in this process since it began to wait. A machine that slept, or a clock that was set, only makes it longer.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from oma.domain.actions import Action
from oma.ports import UpstreamError
from oma.workflow.expiring import LONGEST_SLEEP_S
from oma.workflow.look import ask, until_called_off
from oma.workflow.run import Run

ENDED_BY_SERVER: Final = "server_ended_by"
"""In a revert's evidence: CloudStack's time when its end without proof was seen."""


async def note_server_time(run: Run) -> dict[str, str]:
    """For the evidence of an end: whoever takes the run over may have another clock than who saw it.

    Nothing where the server's time is unknown.
    """
    try:
        return {ENDED_BY_SERVER: (await run.tools.cloud.find_server_time()).isoformat()}
    except UpstreamError:
        return {}


async def find_window_left_s(run: Run, action: Action, until: datetime) -> float:
    """`until` by our clock; by the server's as its end was seen, or as far as the two were apart when it was sent.

    Raises `UpstreamError` where the server's time is unknown, and `Stopped`.
    """
    now = run.tools.clock.now()
    left = until - now
    if action.expires_at is not None and action.sent_at is not None:
        apart = action.expires_at - timedelta(seconds=longest_call_s(run)) - action.sent_at
        left = max(left, until + apart - await ask(run, run.tools.cloud.find_server_time))
    seen = action.evidence.get(ENDED_BY_SERVER)
    if isinstance(seen, str):
        ends = datetime.fromisoformat(seen) + timedelta(seconds=run.tools.figures.revert_window_s)
        left = max(left, ends - await ask(run, run.tools.cloud.find_server_time))
    return left.total_seconds()


async def wait_out(run: Run, left_s: float) -> None:
    """So long, by our clock and by what passes here. Raises `Stopped`, and `Cancelled` at a person's word."""
    clock = run.tools.clock
    until, deadline = clock.now() + timedelta(seconds=left_s), clock.monotonic() + left_s
    while (still_s := max((until - clock.now()).total_seconds(), deadline - clock.monotonic())) > 0:
        await until_called_off(run, clock.sleep(min(still_s, LONGEST_SLEEP_S)))


def longest_call_s(run: Run) -> float:
    """How long after a call was begun its `expires` is at most: never past the end of its lease."""
    return min(run.tools.figures.expires_s, run.tools.figures.lease_s)
