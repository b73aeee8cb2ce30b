"""Whether anything attached a volume since a revert of unknown outcome was begun: then that is never made again.

Sources: section 5 of the safety rules; whoever attached it may have written. All times here are the server's: its
event log has whole seconds of its own clock, and a call's `expires` was journaled in that time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from oma.domain.actions import Action
from oma.domain.forcing import EARLIER, may_have_run
from oma.domain.states import ActionState
from oma.ports import Cloud, UpstreamError
from oma.workflow.doubt import utc
from oma.workflow.look import ask
from oma.workflow.run import Run
from oma.workflow.window import longest_call_s

ATTACHING: Final = "VOLUME.ATTACH"
ENDED_UNPROVEN: Final = frozenset(
    {ActionState.STARTED, ActionState.EXECUTION_FAILED, ActionState.MANUAL_MARKED_AS_ROLLED_BACK}
)
"""States in which an attempt may have changed bytes; where its id was spent it is ROLLED_BACK, and has not."""


@dataclass(frozen=True, slots=True)
class Touch:
    """`told`: the event log shows it; else nobody can tell whether there was one."""

    sentence: str
    told: bool


@dataclass(frozen=True, slots=True)
class Times:
    """`longest_call_s`: how long after it was begun a call's `expires` is at most; `margin_s`: how exact that is."""

    now: datetime
    longest_call_s: float
    margin_s: float


async def find_touch(run: Run, action: Action) -> Touch | None:
    """Since the first attempt that may have changed anything. None: nothing attached it, or none has."""
    times = Times(run.tools.clock.now(), longest_call_s(run), run.tools.figures.late_s)
    try:
        return await ask(run, lambda: look_for_touch(run.tools.cloud, action, times))
    except UpstreamError as error:
        return untold(error)


async def find_touch_before_sending(run: Run, action: Action | None) -> Touch | None:
    """Before another sending. One that was begun is sent only where nothing of it has run: those before it count."""
    if action is None:
        return None
    sent = action.state is ActionState.STARTED
    return await find_touch(run, replace(action, state=ActionState.PLANNED) if sent else action)


async def look_for_touch(cloud: Cloud, action: Action, times: Times) -> Touch | None:
    """Raises `UpstreamError` where the event log does not tell."""
    begun = _list_begun(action)
    if not begun:
        return None
    server_now = await cloud.find_server_time()
    since = [_begun_at(one, times, server_now) for one in begun]
    known = [at for at in since if at is not None]
    first = min(known) - timedelta(seconds=times.margin_s) if len(known) == len(since) else None
    events = await cloud.list_volume_events(action.target.get_volume_id())
    attached = [one for one in events if one.type == ATTACHING and (first is None or one.at is None or one.at >= first)]
    if not attached:
        return None
    last = attached[-1]
    when = f" at {utc(last.at)}" if last.at else ""
    return Touch(f"it was attached since, by CloudStack's event log{when} ({last.text})", told=True)


def untold(error: UpstreamError) -> Touch:
    said = f"{error.upstream.system}: {error.upstream.text}"
    return Touch(f"whether something attached it since can't be told: {said}", told=False)


@dataclass(frozen=True, slots=True)
class _Begun:
    """One attempt: by our clock, and until when it might arrive, by the server's."""

    intent_at: datetime | None
    expires_at: datetime | None


def _list_begun(action: Action) -> list[_Begun]:
    begun = [
        _Begun(_moment(one.get("intent_at")), _moment(one.get("expires_at")))
        for one in action.evidence.get(EARLIER, ())
    ]
    if action.state in ENDED_UNPROVEN and may_have_run(action):
        begun.append(_Begun(action.intent_at, action.expires_at))
    return begun


def _begun_at(begun: _Begun, times: Times, server_now: datetime) -> datetime | None:
    """By the server's clock, and never too late."""
    if begun.expires_at is not None:
        return begun.expires_at - timedelta(seconds=times.longest_call_s)
    return None if begun.intent_at is None else server_now - (times.now - begun.intent_at)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
