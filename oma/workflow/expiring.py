"""Until when a call may arrive: never later than its lease's end, in the server's time, which alone counts there.

Source: section 6 of the safety rules. A process that stood still past its lease sends nothing that is taken any more.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from oma.domain.actions import Action
from oma.domain.changes import Noted
from oma.domain.states import LogLevel
from oma.ports import Cloud, UpstreamError
from oma.workflow.doubt import utc
from oma.workflow.look import ask, until_stopped
from oma.workflow.recovery import cannot_arrive_after
from oma.workflow.run import Run

LONGEST_SLEEP_S: Final = 60.0
"""A wait looks at the clock again at least this often: a machine that slept, or a clock that was set, changes it."""
LEASE_PAUSE_S: Final = 0.2


async def find_expiry(run: Run) -> datetime:
    """For a call whose intent is about to be journaled. Raises `UpstreamError` where the server's clock is unknown."""
    now = await ask(run, run.tools.cloud.find_server_time)
    left_s = await until_leased(run)
    return now + timedelta(seconds=min(run.tools.figures.expires_s, left_s))


async def until_leased(run: Run) -> float:
    """Seconds that the lease lasts at least. Waits where it may have run out, as after this process stood still.

    Whoever renews leases prolongs it then, or ends this run, where somebody else holds the job. Raises `Stopped`.
    """
    while (left_s := run.lease_left_s()) <= 0:
        await until_stopped(run, run.tools.clock.sleep(LEASE_PAUSE_S))
    return left_s


async def has_expired(run: Run, action: Action) -> bool:
    """By the server's time; raises `UpstreamError`."""
    return action.expires_at is not None and await ask(run, run.tools.cloud.find_server_time) >= action.expires_at


async def wait_until_it_cannot_arrive(run: Run, action: Action, why: str) -> None:
    """By the server's time; says once until when it waits. Raises `UpstreamError` and `Stopped`."""
    until = cannot_arrive_after(action, run.tools.figures.late_s)
    said = False
    while until is not None:
        left_s = (until - await ask(run, run.tools.cloud.find_server_time)).total_seconds()
        if left_s <= 0:
            return
        if not said:
            said = True
            sentence = f"{why}: it may arrive until {utc(until)}; then what CloudStack shows decides."
            await run.journal.write(Noted(LogLevel.WARN, sentence, action.phase, {"waits_until": until.isoformat()}))
        await until_stopped(run, run.tools.clock.sleep(min(left_s, LONGEST_SLEEP_S)))


async def find_expiry_of_unmarking(cloud: Cloud, expires_s: float) -> datetime | None:
    """Of a call that outlives its run's lease, which harms nobody; None where nobody tells the server's time now."""
    try:
        return await cloud.find_server_time() + timedelta(seconds=expires_s)
    except UpstreamError:
        return None
