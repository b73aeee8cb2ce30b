"""How a marker is put on and taken off, and how both are proven.

One `createTags` marks all volumes of a run, or all its snapshots, in one transaction of CloudStack: it is the lock
between installations. Its own job's success proves it; where that cannot be had, what `listTags` shows does. Source:
section 6 of the safety rules; `TaggedResourceManagerImpl` (all or none, an existing key fails the job).
"""

from __future__ import annotations

from oma.domain.actions import Action
from oma.domain.world import Marked, build_mark
from oma.ports import Cloud, RemoteOutcome, RemoteStatus
from oma.workflow.look import Verdict
from oma.workflow.run import Run

OTHERS = "others"
"""In a marker's evidence: what carries somebody else's marker, and its value."""


def marked_kind(action: Action) -> Marked:
    return Marked.VOLUME if action.target.volume_ids else Marked.SNAPSHOT


def mark_value(installation: str, action: Action) -> str:
    """What the action puts on or takes off: its own run's marker, or the one that an earlier run left."""
    return action.target.mark or build_mark(installation, action.job_id)


async def submit_mark(run: Run, action: Action) -> str:
    return await run.tools.cloud.submit_set_marks(
        marked_kind(action),
        action.target.marked_ids,
        mark_value(run.tools.limits.installation, action),
        request_id=action.request_id,
        expires_at=action.expires_at,
    )


async def submit_unmark(run: Run, action: Action) -> str:
    return await send_unmark(run.tools.cloud, run.tools.limits.installation, action)


async def send_unmark(cloud: Cloud, installation: str, action: Action) -> str:
    return await cloud.submit_clear_marks(
        marked_kind(action),
        action.target.marked_ids,
        mark_value(installation, action),
        request_id=action.request_id,
        expires_at=action.expires_at,
    )


async def judge_marked(run: Run, action: Action, outcome: RemoteOutcome) -> Verdict:
    value, ids = mark_value(run.tools.limits.installation, action), action.target.marked_ids
    if outcome.status is RemoteStatus.SUCCEEDED:
        return Verdict(True, f"{_things(action)} carry the marker {value}.", {"mark": value})
    seen = await run.tools.cloud.list_marks_of(marked_kind(action), ids)
    ours = {one.volume_id for one in seen if one.value == value}
    others = {one.volume_id: one.value for one in seen if one.value != value}
    if ours == set(ids):
        sentence = f"{_things(action)} carry the marker {value}."
    elif others:
        said = ", ".join(f"{one} carries {other or '(empty)'}" for one, other in others.items())
        sentence = f"{_things(action)} are not marked: {said}."
    else:
        sentence = f"{_things(action)} are not marked; CloudStack shows the marker {value} on {len(ours)} of them."
    return Verdict(ours == set(ids), sentence, {"mark": value, "marked": len(ours), OTHERS: others})


async def judge_unmarked(run: Run, action: Action, outcome: RemoteOutcome) -> Verdict:
    return await find_unmarked(run.tools.cloud, run.tools.limits.installation, action, outcome)


async def find_unmarked(cloud: Cloud, installation: str, action: Action, outcome: RemoteOutcome) -> Verdict:
    """A job that found nothing to take off has failed, and the marker is gone all the same."""
    value = mark_value(installation, action)
    left: list[str] = []
    if outcome.status is not RemoteStatus.SUCCEEDED:
        seen = await cloud.list_marks_of(marked_kind(action), action.target.marked_ids)
        left = [one.volume_id for one in seen if one.value == value]
    sentence = f"{', '.join(left)} still carry" if left else f"{_things(action)} no longer carry"
    return Verdict(not left, f"{sentence} the marker {value}.", {"mark": value, "left": left})


def _things(action: Action) -> str:
    number = len(action.target.marked_ids)
    return f"{number} {marked_kind(action).value.lower()}{'' if number == 1 else 's'}"
