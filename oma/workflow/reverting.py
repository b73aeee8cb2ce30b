"""Reverts that ended without their proof: the window is waited out, then the same revert is made again, a few times.

Source: section 5 of the safety rules. The hypervisor may work on after a revert's job was marked failed; the same
revert, repeated to success before anything attaches the volume, makes its content right again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from oma.domain.actions import Action, PlannedAction
from oma.domain.changes import Noted
from oma.domain.forcing import next_attempt
from oma.domain.states import ActionState, LogLevel
from oma.ports import RemoteStatus
from oma.workflow.actions import perform
from oma.workflow.doubt import utc
from oma.workflow.recovery import Decision, Found, decide, find_revert_end
from oma.workflow.run import Failure, Parked, Run
from oma.workflow.touched import Touch, find_touch
from oma.workflow.window import find_window_left_s, wait_out

ENDED_UNKNOWN: Final = frozenset({RemoteStatus.FAILED, RemoteStatus.ABSENT, RemoteStatus.UNTRACEABLE})
"""Ends of a revert's job after which its effect is unknown; one that is silent may not have ended at all."""


async def revert_until_proven(
    run: Run, reverts: Sequence[PlannedAction], ask_first: Callable[[PlannedAction], Awaitable[None]]
) -> None:
    """Raises `Parked` with a failure for every revert that is begun and not proven, and `Stopped`."""
    ended: dict[str, Failure] = {}
    while True:
        try:
            await perform(run, reverts, ask_first=ask_first)
        except Parked as parked:
            failures = _with_those_before(run, parked.failures, ended)
            ended |= {one.action.id: one for one in failures if one.action is not None}
            await _prepare_another(run, failures)
        else:
            return


def _with_those_before(run: Run, failures: Sequence[Failure], ended: dict[str, Failure]) -> list[Failure]:
    """A revert that was to be made again, and was not begun, is as unproven as before."""
    named = {one.action.id for one in failures if one.action is not None}
    waiting = {action.id for action in run.actions if action.state is ActionState.PLANNED}
    return [*failures, *(ended[action_id] for action_id in ended if action_id in waiting - named)]


async def _prepare_another(run: Run, failures: Sequence[Failure]) -> None:
    """Waits until every one of these reverts may be made again; raises `Parked` where one of them may not."""
    unproven = [_unproven_revert(run, one) for one in failures]
    actions = [one for one in unproven if one is not None]
    if len(actions) < len(failures):
        raise Parked(failures)
    found = {action.id: _judge(run, action, touched=False) for action in actions}
    if any(decide(action, found[action.id][0]) is Decision.PARK for action in actions):
        raise Parked([_explained(run, one, found) for one in failures])
    await _wait_out(run, actions, [until for _, until in found.values() if until is not None])
    touched = {action.id: await find_touch(run, action) for action in actions}
    found = {action.id: _judge(run, action, touched=touched[action.id] is not None) for action in actions}
    if any(decide(action, found[action.id][0]) is not Decision.SEND for action in actions):
        raise Parked([_touched(one, touched) for one in failures])
    for action in actions:
        run.remember(next_attempt(action))


def _unproven_revert(run: Run, failure: Failure) -> Action | None:
    """The revert as the journal has it, where its own job has ended and nobody can tell what it did."""
    if failure.action is None or not failure.unknown:
        return None
    action = next((one for one in run.actions if one.id == failure.action.id), None)
    if action is None or action.state is not ActionState.EXECUTION_FAILED:
        return None
    said = failure.evidence.get("job")
    return replace(action, evidence={**action.evidence, **failure.evidence}) if said in ENDED_UNKNOWN else None


def _judge(run: Run, action: Action, *, touched: bool) -> tuple[Found, datetime | None]:
    figures = run.tools.figures
    return find_revert_end(
        action,
        run.tools.clock.now(),
        window_s=figures.revert_window_s,
        attempts=figures.revert_attempts,
        touched=touched,
    )


async def _wait_out(run: Run, actions: Sequence[Action], times: Sequence[datetime]) -> None:
    """`times`: until when each is young; raises `UpstreamError` where the server's time is unknown, and `Stopped`."""
    names = " and ".join(run.name_of(action.target) for action in actions)
    left_s = max([await find_window_left_s(run, one, until) for one, until in zip(actions, times, strict=True)])
    if left_s > 0:
        until = run.tools.clock.now() + timedelta(seconds=left_s)
        sentence = (
            f"How the revert of {names} ended can't be told, and the hypervisor may still be at it: the run waits "
            f"until {utc(until)}, then reverts again unless something attached it meanwhile."
        )
        phase = actions[0].phase
        attrs = {"waits_until": until.isoformat(), "action_ids": [one.id for one in actions]}
        await run.journal.write(Noted(LogLevel.WARN, sentence, phase, attrs))
    await wait_out(run, left_s)


def _explained(run: Run, failure: Failure, found: dict[str, tuple[Found, datetime | None]]) -> Failure:
    action = failure.action
    if action is None or found[action.id][0] is not Found.UNPROVEN_SPENT:
        return failure
    attempts = run.tools.figures.revert_attempts
    return replace(failure, sentence=f"{failure.sentence} It was tried {max(action.attempt, attempts)} times.")


def _touched(failure: Failure, touched: dict[str, Touch | None]) -> Failure:
    touch = touched.get(failure.action.id) if failure.action else None
    if touch is None:
        return failure
    sentence = f"{failure.sentence} It is not reverted again: {touch.sentence}."
    return replace(failure, sentence=sentence, evidence={**failure.evidence, "touched": touch.sentence})
