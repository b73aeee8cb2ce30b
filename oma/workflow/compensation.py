"""A run goes back: before the first revert a failure, or a person's cancel, puts what it detached on the OMA again.

Every step may be repeated by a later process: that the run goes back is journaled first, every call is an action like
any other, and how it ends is one transaction. What to do is decided in `oma.domain.undoing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from oma.domain.actions import ActionKind
from oma.domain.changes import (
    ActionEnded,
    Change,
    JobEnded,
    JobReleased,
    OwnIssuesClosed,
    StatusRestored,
    StepEnded,
    UndoingBegun,
)
from oma.domain.errors import Code, ConcurrentChange, OmaError
from oma.domain.jobs import build_summary
from oma.domain.states import DONE_ACTION_STATES, ActionState, JobState, Phase, StepStatus
from oma.domain.undoing import (
    CancelAsked,
    Found,
    Return,
    Undoing,
    Way,
    can_turn_back,
    find_returns,
    find_way,
    has_something_to_undo,
    restores_status,
)
from oma.domain.verdict import of_cancelled, of_undone
from oma.ports import UpstreamError
from oma.workflow.actions import perform
from oma.workflow.brakes import stopped_sentence
from oma.workflow.finishing import unfollowed
from oma.workflow.gone import end_return, track_gone
from oma.workflow.late_detaches import end_detaches, end_operation, end_others
from oma.workflow.look import Look, settled_look, unless_away
from oma.workflow.parking import build_error, park
from oma.workflow.run import Failure, Parked, Run, Stopped, code_of
from oma.workflow.stragglers import end_stragglers
from oma.workflow.taken_over import find_taken_over, tell
from oma.workflow.unmarking import end_markers

HAD_EFFECT: Final = frozenset({ActionState.EXECUTED, ActionState.MANUAL_MARKED_AS_EXECUTED})


@dataclass(frozen=True, slots=True)
class _Fate:
    """How one detach was undone, or why it could not be."""

    one: Return
    found: Found
    failure: Failure | None = None


def turns_back(run: Run) -> bool:
    """Whether a failure now makes the run go back: it moved a volume, and nothing since forbids it."""
    return run.undoing is not None or (
        can_turn_back(run.actions, reverted=run.reverted) and has_something_to_undo(run.actions)
    )


async def go_back(run: Run, undoing: Undoing | None = None) -> str:
    """Puts everything back and ends the run, or parks it where that is not proven. Returns its sentence.

    Without `undoing` it goes on with what an earlier process began. Raises `LeaseLost`, and `OmaError`
    `database_unavailable`.
    """
    try:
        return await unless_away(run, _go_back(run, undoing))
    except Stopped:
        return await _release(run, stopped_sentence(run.tools.stop, "on the way back"))
    except Parked as parked:
        return await _park(run, parked.failures, ())
    except UpstreamError as error:
        sentence = f"{error.upstream.system} did not say where the volumes are: {error.upstream.text}"
        return await _park(run, [Failure(code_of(error), sentence, Phase.DETACH, upstream=error.upstream)], ())
    except OmaError as error:
        if error.code is Code.DATABASE_UNAVAILABLE:
            raise
        return await _park(run, [Failure(Code.CLEANUP_FAILED, error.sentence, Phase.DETACH)], ())
    except ConcurrentChange as error:
        sentence = f"Somebody else changed a record of this run: {error}"
        return await _park(run, [Failure(Code.CLEANUP_FAILED, sentence, Phase.DETACH, unknown=True)], ())


def build_undoing(run: Run, failures: Sequence[Failure]) -> Undoing:
    """Why a failed run turns back: its first failure is its last word, and the others are kept beside it."""
    first = failures[0]
    error = {
        **build_error(run, first),
        "evidence": dict(first.evidence),
        "failures": [failure.sentence for failure in failures],
    }
    return Undoing(JobState.FAILED, error)


def build_cancelling(run: Run, asked: CancelAsked) -> Undoing:
    failure = Failure(Code.CLEANUP_FAILED, f"{asked.sentence}.", run.phase)
    return Undoing(JobState.CANCELLED, {**build_error(run, failure), "cancelled_by": asked.actor})


async def _go_back(run: Run, undoing: Undoing | None) -> str:
    if run.undoing is None:
        if undoing is None:
            raise ValueError("a run that goes back says why")
        cause = str(undoing.error["detail"])
        await run.journal.write(UndoingBegun(undoing, f"The run goes back, nothing was reverted yet: {cause}"))
        run.undoing = undoing
    run.phase = Phase.DETACH if run.has_acted else run.phase
    returns = find_returns(run.plan, run.actions)
    late = await end_others(run)
    untold = await end_detaches(run, returns)
    fates = await _bring_home(run, [one for one in returns if one.volume.volume_id not in untold])
    failures = [*untold.values(), *(fate.failure for fate in fates if fate.failure is not None)]
    taken = await find_taken_over(run)
    failures += [*late, *taken]
    ends = [_rolled_back(fate) for fate in fates] + [
        _not_rolled_back(one, untold[one.volume.volume_id].sentence)
        for one in returns
        if one.volume.volume_id in untold
    ]
    changes = [change for change in ends if change is not None]
    if failures:
        return await _park(run, failures, [*changes, *tell(run, failures)])
    return await _end(run, fates, changes)


async def _bring_home(run: Run, returns: Sequence[Return]) -> list[_Fate]:
    """Attaches what hangs nowhere, in disk order; each stands for itself."""
    straggling = await end_stragglers(run, [one.volume.volume_id for one in returns])
    left = [
        _blocked(one, replace(straggling[one.volume.volume_id], action=one.detach))
        for one in returns
        if one.volume.volume_id in straggling
    ]
    returns = [one for one in returns if one.volume.volume_id not in straggling]
    if not returns:
        return left
    look = await _look(run, returns)
    ways = {one.volume.volume_id: _way(run, one, look) for one in returns}
    gone = [one for one in returns if ways[one.volume.volume_id].way is Way.GONE]
    left_to_do = [one for one in returns if one not in gone]
    todo = [one for one in left_to_do if ways[one.volume.volume_id].way is Way.ATTACH or _is_open(run, one)]
    for one in gone:
        await end_return(run, one)
    for one in todo:
        await _renew(run, one)
    failed: dict[str, Failure] = {}
    try:
        await perform(run, [one.attach for one in todo], in_order=True, each_for_itself=True)
    except Parked as parked:
        for failure in parked.failures:
            if failure.action is None:
                raise
            failed[failure.action.target.get_volume_id()] = failure
    if todo:
        look = await _look(run, returns)
    return [*left, *(_judge(one, _way(run, one, look), failed.get(one.volume.volume_id)) for one in returns)]


async def _look(run: Run, returns: Sequence[Return]) -> Look:
    return await settled_look(run, [one.volume.volume_id for one in returns], [run.plan.oma_vm_id])


def _way(run: Run, one: Return, look: Look) -> Found:
    volume_id, oma_vm_id = one.volume.volume_id, run.plan.oma_vm_id
    oma = look.vms.get(oma_vm_id)
    found = find_way(
        one,
        look.volumes.get(volume_id),
        device_shown=look.shows_device(volume_id),
        oma_vm_id=oma_vm_id,
        oma_state=oma.state if oma else "not listed",
    )
    told = run.undoing is not None and volume_id in run.undoing.told_gone
    return replace(found, way=Way.GONE) if found.way is Way.MISSING and told else found


def _is_open(run: Run, one: Return) -> bool:
    """Its attach was begun and is not proven: it is brought to an end, wherever the volume is by now."""
    action = run.find_action(one.attach)
    return action is not None and action.state in (ActionState.STARTED, ActionState.EXECUTION_FAILED)


async def _renew(run: Run, one: Return) -> None:
    """An attach that failed before, or was undone since, is sent again under a new id, once the old call has ended."""
    action = run.find_action(one.attach)
    if action is None or action.state in (ActionState.STARTED, ActionState.PLANNED):
        return
    if action.state is ActionState.EXECUTION_FAILED:
        await end_operation(run, action)
    elif action.state in HAD_EFFECT:
        sentence = f"{one.volume.name} was brought home, and hangs nowhere now: somebody took it off again."
        await run.journal.write(
            ActionEnded(action.id, ActionState.ROLLED_BACK, sentence, action.evidence, action.error)
        )
    run.remember(
        replace(
            action,
            state=ActionState.PLANNED,
            attempt=action.attempt + 1,
            remote_id=None,
            sent_at=None,
            ended_at=None,
            error=None,
        )
    )


def _judge(one: Return, found: Found, failure: Failure | None) -> _Fate:
    if found.way in (Way.HOME, Way.NEVER_LEFT, Way.GONE) and failure is None:
        return _Fate(one, found)
    if failure is None:
        failure = Failure(Code.CLEANUP_FAILED, found.sentence, Phase.DETACH, one.detach, unknown=True)
    if found.way is Way.MISSING:
        failure = replace(failure, evidence={**failure.evidence, "gone": one.volume.volume_id})
    return _blocked(one, failure)


def _blocked(one: Return, failure: Failure) -> _Fate:
    return _Fate(one, Found(Way.BLOCKED, failure.sentence), failure)


def _rolled_back(fate: _Fate) -> ActionEnded | None:
    """The detach's own end; its error and evidence stay, with what was seen when it was undone."""
    action = fate.one.detach
    if fate.found.way is Way.GONE and action.state is ActionState.STARTED:
        # Its call has ended, and there is no volume any more that could tell how.
        return ActionEnded(action.id, ActionState.EXECUTION_FAILED, fate.found.sentence, action.evidence, action.error)
    if fate.failure is not None or fate.found.way is Way.GONE:
        return _not_rolled_back(fate.one, fate.found.sentence)
    if action.state is ActionState.ROLLED_BACK:
        return None
    evidence = {**action.evidence, "undone": fate.found.way.value}
    return ActionEnded(action.id, ActionState.ROLLED_BACK, fate.found.sentence, evidence, action.error)


def _not_rolled_back(one: Return, sentence: str) -> ActionEnded | None:
    """Only a detach that had its effect can fail to be undone; one whose end is not known keeps its state."""
    action = one.detach
    if action.state not in HAD_EFFECT:
        return None
    return ActionEnded(action.id, ActionState.ROLLBACK_FAILED, sentence, action.evidence, action.error)


async def _end(run: Run, fates: Sequence[_Fate], ends: Sequence[Change]) -> str:
    undoing = run.undoing
    if undoing is None:
        raise ValueError("a run that goes back says why")
    plan, touched = run.plan, run.has_acted
    returned = [fate.one.volume.name for fate in fates if fate.found.way is Way.HOME]
    stayed = [fate.one.volume.name for fate in fates if fate.found.way is Way.NEVER_LEFT]
    verdict = of_undone(plan, returned, stayed, _stopped(run)) if touched else of_cancelled(plan, run.job.id)
    error = {**undoing.error, "undone": returned, **verdict.as_json()}
    detail = str(error["detail"])
    said = f"{len(returned)} of {len(fates)} volumes put back on the OMA" if touched else "Nothing was touched"
    gone = [fate.one for fate in fates if fate.found.way is Way.GONE]
    changes: list[Change] = [*ends, *track_gone(run, gone)]
    if touched:
        but = f" But {' and '.join(one.volume.name for one in gone)}, which CloudStack no longer lists." if gone else ""
        changes.append(OwnIssuesClosed(f"Every volume of this run is proven to be where it belongs.{but}"))
    if not run.step_is_over(run.phase):
        changes.append(StepEnded(run.phase, StepStatus.FAILED, detail, line=f"{run.phase.value} was undone."))
    if restores_status(plan, touched=touched) and not gone:
        former = plan.former_status
        changes.append(StatusRestored(plan.context_id, former, f"Status back to {former}."))
    summary = build_summary(run.job.id, undoing.ends, run.tools.clock.now(), error)
    changes += await end_markers(run)
    changes.append(JobEnded(undoing.ends, f"The run ended {undoing.ends.value}. {said}.", error=error, summary=summary))
    await run.journal.write(*changes)
    return f"{undoing.ends.value}: {detail} {said}."


def _stopped(run: Run) -> list[str]:
    """VMs that this run stopped: a stop is not undone."""
    test_vm = run.plan.test_vm
    stops = [one for one in run.actions if one.kind is ActionKind.STOP_VM and one.state in DONE_ACTION_STATES]
    return [test_vm.name if test_vm and one.target.vm_id == test_vm.vm_id else str(one.target.vm_id) for one in stops]


async def _park(run: Run, failures: Sequence[Failure], before: Sequence[Change]) -> str:
    return await park(run, (*failures, *unfollowed(run, failures)), before=before)


async def _release(run: Run, sentence: str) -> str:
    await run.journal.write(JobReleased(sentence))
    return sentence
