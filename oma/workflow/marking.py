"""Phase 1 marks what the run works on, beside its last checks; a marker that is not ours stops it.

Markers that finished runs of ours have left go first. Source: section 6 of the safety rules.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from oma.domain.actions import Action, ActionKind, PlannedAction, Target
from oma.domain.changes import ActionEnded, Noted
from oma.domain.errors import Code
from oma.domain.marking import build_unmarking
from oma.domain.states import ActionState, LogLevel, Phase
from oma.domain.world import Mark
from oma.workflow.actions import perform
from oma.workflow.marks import OTHERS
from oma.workflow.run import Failure, Parked, Run

TRIES: Final = 2
"""Times that things are marked: once more where a finished run's marker stood in the way and was taken off."""


async def set_markers(run: Run) -> None:
    """Marks what the plan names and is not marked yet; raises `Parked` where it must not go on without, and `Stopped`.

    A run that is asked to look only changes nothing and marks nothing.
    """
    if set(run.job.request.phases) <= {Phase.ANALYZE}:
        return
    await _perform(run, run.planned(Phase.ANALYZE, ActionKind.CLEAR_MARKER))
    wanted = run.planned(Phase.ANALYZE, ActionKind.SET_MARKER)
    for tried in range(1, TRIES + 1):
        failures = await _perform(run, [again(run, one) for one in wanted])
        if not failures:
            return
        leftovers = await _leftovers(run, failures)
        if leftovers and tried < TRIES:
            await _perform(run, leftovers)
        elif run.tools.limits.markers_required or not await _go_without(run, failures):
            raise Parked([as_guarded(run, one) for one in failures])
        else:
            return


async def _perform(run: Run, planned: list[PlannedAction]) -> tuple[Failure, ...]:
    try:
        await perform(run, planned, each_for_itself=True)
    except Parked as parked:
        return parked.failures
    return ()


def again(run: Run, one: PlannedAction) -> PlannedAction:
    """One that failed is sent again under the id of its next attempt: each is as good as the first."""
    action = run.find_action(one)
    if action is not None and action.state is ActionState.EXECUTION_FAILED:
        attempt = action.attempt + 1
        run.remember(
            replace(action, state=ActionState.PLANNED, attempt=attempt, remote_id=None, sent_at=None, ended_at=None)
        )
    return one


async def _leftovers(run: Run, failures: tuple[Failure, ...]) -> list[PlannedAction]:
    """What stands in the way, where it is nothing but markers of runs of ours that have ended."""
    found: dict[str, Target] = {}
    ended = (await run.tools.inventory.get_records(run.plan.context_id)).ended_job_ids if failures else frozenset()
    for failure in failures:
        others = dict(failure.evidence.get(OTHERS) or {})
        if failure.action is None or not others:
            return []
        for each, value in others.items():
            mark = Mark(each, value)
            if mark.installation != run.tools.limits.installation or mark.job_id not in ended:
                return []
            of_volumes = bool(failure.action.target.volume_ids)
            known = found.get(f"{of_volumes}/{value}", Target(mark=value))
            found[f"{of_volumes}/{value}"] = (
                replace(known, volume_ids=(*known.volume_ids, each))
                if of_volumes
                else replace(known, snapshot_ids=(*known.snapshot_ids, each))
            )
    return [
        build_unmarking(Phase.ANALYZE, one, f"Take the marker {one.mark} off, which a finished run of ours has left.")
        for one in found.values()
    ]


async def _go_without(run: Run, failures: tuple[Failure, ...]) -> bool:
    """Where markers are best effort, only one of somebody else's keeps a run from going on; the log says it."""
    actions: list[Action] = [one.action for one in failures if one.action is not None]
    if len(actions) < len(failures) or any(one.evidence.get(OTHERS) for one in failures):
        return False
    for failure, action in zip(failures, actions, strict=True):
        sentence = f"Markers are best effort: the run goes on without {action.words}. {failure.sentence}"
        await run.journal.write(
            ActionEnded(action.id, ActionState.SKIPPED, sentence, failure.evidence, action.error),
            Noted(LogLevel.WARN, sentence, action.phase),
        )
        run.mark(action, ActionState.SKIPPED, sentence)
    return True


def as_guarded(run: Run, failure: Failure) -> Failure:
    """Somebody else's marker is told as the guard tells it; the run has touched nothing yet."""
    others = dict(failure.evidence.get(OTHERS) or {})
    if not others:
        return failure
    said = ", ".join(f"{each} carries {value or '(empty)'}" for each, value in others.items())
    sentence = f"{run.plan.vm_name} can't be marked as ours ({run.tools.limits.installation}): {said}."
    return replace(failure, sentence=sentence, guard=Code.FOREIGN_MARKER)
