"""What a person's word makes of the actions that it is about, as it is journaled with them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from oma.domain.actions import Action, ActionKind, PlannedAction, Target
from oma.domain.jobs import Job
from oma.domain.resolving import JOB_ENDED_BY, RESOLVED, ActionMark, Resolution, ended_by_of
from oma.domain.states import ActionState, Phase
from oma.domain.whole_copies import DONE, NOT_RUN, find_given_up
from oma.ports import Ids


@dataclass(frozen=True, slots=True)
class Word:
    """Who said what, why and when."""

    resolution: Resolution
    actor: str
    notes: str
    at: datetime


def build_mark(
    word: Word, action: Action, state: ActionState, *, seen: dict[str, Any], ended_by: datetime | None
) -> ActionMark:
    """The run reads in the action's evidence what it may do, and from when on."""
    said = {
        "resolution": word.resolution.value,
        "actor": word.actor,
        "notes": word.notes,
        "at": word.at.isoformat(),
        "seen": seen,
        **({JOB_ENDED_BY: ended_by.isoformat()} if ended_by is not None else {}),
    }
    sentence = f"{word.actor} said {word.resolution.value}: {word.notes}"
    marked = replace(action, state=state, evidence={**action.evidence, RESOLVED: said}, sentence=sentence)
    return ActionMark(marked, action.state)


def build_whole_copies(
    word: Word, issue_kind: str, job: Job, actions: Collection[Action], ids: Ids
) -> tuple[ActionMark, ...]:
    """Every revert that `RESYNC` gives up here; empty where none is left.

    One that is done has ended long ago: nothing waits for its window.
    """
    marks: list[ActionMark] = []
    seq = max((one.seq for one in actions), default=0)
    for planned, action in find_given_up(issue_kind, job.plan, actions):
        if action is None:
            seq += 1
            fresh = _never_begun(ids, job, planned, seq)
            mark = build_mark(word, fresh, ActionState.SKIPPED, seen={}, ended_by=None)
            marks.append(replace(mark, expected=None))
        else:
            ended_by = None if action.state in DONE else ended_by_of(action) or action.ended_at or word.at
            marks.append(build_mark(word, action, ActionState.SKIPPED, seen={}, ended_by=ended_by))
    return tuple(marks)


def build_whole_copy_of(
    word: Word, gone: Target, job: Job, actions: Collection[Action], ids: Ids
) -> tuple[ActionMark, ...]:
    """The revert of a volume that is nowhere any more; where it needed none, the word stands in a row of its own."""
    reverts = [one for one in actions if one.kind is ActionKind.REVERT_SNAPSHOT]
    own = [one for one in reverts if one.target.volume_id == gone.volume_id]
    if not own:
        target = Target(volume_id=gone.volume_id, volume_name=gone.volume_name)
        planned = PlannedAction(Phase.SNAPSHOTS, ActionKind.REVERT_SNAPSHOT, target, "It is given up.")
        fresh = _never_begun(ids, job, planned, max((one.seq for one in actions), default=0) + 1)
        return (replace(build_mark(word, fresh, ActionState.SKIPPED, seen={}, ended_by=None), expected=None),)
    settled = (one for one in own if one.state in NOT_RUN | DONE)
    return tuple(build_mark(word, one, ActionState.SKIPPED, seen={}, ended_by=one.ended_at) for one in settled)


def _never_begun(ids: Ids, job: Job, planned: PlannedAction, seq: int) -> Action:
    return Action(
        id=ids.new_id(),
        job_id=job.id,
        phase=Phase.SNAPSHOTS,
        seq=seq,
        kind=planned.kind,
        target=planned.target,
        state=ActionState.SKIPPED,
        sentence=planned.sentence,
    )
