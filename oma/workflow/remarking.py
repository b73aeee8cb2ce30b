"""A run that is taken up again looks at its markers first: a person may have lifted them while it stood still.

Then another installation may be at work on the same things, and this run does nothing more. Source: section 6 of the
safety rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from oma.domain.actions import ActionKind, PlannedAction
from oma.domain.errors import Code
from oma.domain.marking import build_own_marking
from oma.domain.states import ActionState, Phase
from oma.domain.world import Marked, build_mark
from oma.ports import UpstreamError
from oma.workflow.actions import perform
from oma.workflow.guards.marks import NOT_ALLOWED
from oma.workflow.look import ask
from oma.workflow.marking import again, as_guarded
from oma.workflow.marks import OTHERS, marked_kind
from oma.workflow.run import Failure, Parked, Run


async def find_lost_markers(run: Run) -> tuple[Failure, ...]:
    """Why the run must not go on: somebody else's marker is where its own was. What was merely taken off is put on
    again, all or none, but not on the way back.

    Nothing is asked before the first phase is over, which asks by itself, nor of what this very process has marked, or
    went on without. Raises what asking and sending raise.
    """
    wanted = _marked_before(run) if run.step_is_over(Phase.ANALYZE) else {}
    if not wanted:
        return ()
    try:
        seen = await ask(run, run.tools.cloud.list_marks)
    except UpstreamError as error:
        if run.tools.limits.markers_required or error.upstream.code not in NOT_ALLOWED:
            raise
        return ()
    value = build_mark(run.tools.limits.installation, run.job.id)
    found = {one.volume_id: one for one in seen if one.volume_id in wanted}
    others = {each: mark.value for each, mark in found.items() if mark.value != value}
    if others:
        failure = Failure(Code.CLEANUP_FAILED, "", run.phase, evidence={OTHERS: others})
        return (as_guarded(run, failure),)
    if run.undoing is not None:
        return ()
    planned = _begun_before(run) or await _plan_missing(run, wanted, [each for each in wanted if each not in found])
    return await _mark_again(run, planned)


def _marked_before(run: Run) -> Mapping[str, Marked]:
    """What carries our marker by the journal. A snapshot that was deleted has none any more, and what a person has
    said to be marked is not asked about.
    """
    actions = sorted(run.actions, key=lambda one: one.seq)
    wanted: dict[str, Marked] = {}
    for action in actions:
        if action.kind is ActionKind.DELETE_SNAPSHOT:
            wanted.pop(action.target.get_snapshot_id(), None)
        elif action.kind is not ActionKind.SET_MARKER or run.began(action):
            continue
        elif action.state is ActionState.EXECUTED:
            wanted |= dict.fromkeys(action.target.marked_ids, marked_kind(action))
        elif action.state is ActionState.MANUAL_MARKED_AS_EXECUTED:
            wanted = {each: what for each, what in wanted.items() if each not in action.target.marked_ids}
    return wanted


def _begun_before(run: Run) -> list[PlannedAction]:
    """What an earlier process began to mark again is followed first; the next one looks at what is missing then."""
    begun = [one for one in run.actions if one.kind is ActionKind.SET_MARKER and one.state is ActionState.STARTED]
    return [build_own_marking(one.target.volume_ids, one.target.snapshot_ids)[-1] for one in begun]


async def _plan_missing(run: Run, wanted: Mapping[str, Marked], missing: Sequence[str]) -> list[PlannedAction]:
    """What is not listed any more can't be marked: other rules say what that means."""
    volumes = [each for each in missing if wanted[each] is Marked.VOLUME]
    snapshots = [each for each in missing if wanted[each] is Marked.SNAPSHOT]
    if not missing:
        return []
    cloud = run.tools.cloud
    listed_volumes = tuple(one.id for one in await ask(run, lambda: cloud.list_volumes(volumes)))
    listed_snapshots = tuple(one.id for one in await ask(run, lambda: cloud.list_snapshots(snapshots)))
    return build_own_marking(listed_volumes, listed_snapshots)[0 if listed_volumes else 1 :]


async def _mark_again(run: Run, planned: Sequence[PlannedAction]) -> tuple[Failure, ...]:
    for one in planned:
        if run.is_done(one):
            run.forget(one)
    try:
        await perform(run, [again(run, one) for one in planned])
    except Parked as parked:
        failures = parked.failures
        if not run.tools.limits.markers_required and not any(one.evidence.get(OTHERS) for one in failures):
            return ()
        return tuple(as_guarded(run, one) for one in failures)
    return ()
