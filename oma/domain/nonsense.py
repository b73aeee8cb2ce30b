"""What can't be true of a run's journal: a half-restored database, a clock set back, a row edited by hand. Pure.

Such a run is parked before anything is done; what it says about the world may be as wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import Final

from oma.domain.actions import Action, ActionKind
from oma.domain.jobs import Job, Step
from oma.domain.states import PHASES, ActionState, Phase, StepStatus

FUTURE: Final = timedelta(minutes=15)
"""How far ahead of our clock a journaled time may be: two machines' clocks differ, by less."""
OVER: Final = frozenset({StepStatus.COMPLETED, StepStatus.SKIPPED})
NAMED: Final[dict[ActionKind, tuple[Callable[[Action], object], ...]]] = {
    ActionKind.STOP_VM: (lambda one: one.target.get_vm_id(),),
    ActionKind.END_HOLDER: (lambda one: one.target.get_volume_id(), lambda one: one.target.get_root()),
    ActionKind.DETACH_VOLUME: (lambda one: one.target.get_volume_id(),),
    ActionKind.REVERT_SNAPSHOT: (lambda one: one.target.get_snapshot_id(), lambda one: one.target.get_volume_id()),
    ActionKind.DELETE_SNAPSHOT: (lambda one: one.target.get_snapshot_id(),),
    ActionKind.ATTACH_VOLUME: (lambda one: one.target.get_volume_id(), lambda one: one.target.get_vm_id()),
    ActionKind.DESTROY_VM: (lambda one: one.target.get_vm_id(),),
}
"""What the target of each kind has to name; a revert that a person gave up may never have had a snapshot."""
ROWS_OF: Final[dict[Phase, ActionKind]] = {
    Phase.DETACH: ActionKind.DETACH_VOLUME,
    Phase.SNAPSHOTS: ActionKind.REVERT_SNAPSHOT,
    Phase.REATTACH: ActionKind.ATTACH_VOLUME,
}
"""Phases that end only when every planned action of this kind has a row."""
UNSETTLED: Final = frozenset({ActionState.PLANNED, ActionState.STARTED, ActionState.EXECUTION_FAILED})


def find_nonsense(job: Job, steps: Collection[Step], actions: Collection[Action], now: datetime) -> str | None:
    """The first thing that can't be true, in a sentence; None where the journal can be believed."""
    return next(_find(job, steps, actions, now), None)


def _find(job: Job, steps: Collection[Step], actions: Collection[Action], now: datetime) -> Iterator[str]:
    for action in actions:
        yield from _in_itself(action, now)
    if job.undoing is not None:
        return
    yield from _in_its_order(steps)
    yield from _against_the_plan(job, steps, actions)
    yield from _against_each_other(job, actions)


def _in_itself(action: Action, now: datetime) -> Iterator[str]:
    name = f"the action {action.id} ({action.kind.value}, {action.state.value})"
    given_up = action.kind is ActionKind.REVERT_SNAPSHOT and action.state is ActionState.SKIPPED
    for named in () if given_up else NAMED.get(action.kind, ()):
        try:
            named(action)
        except ValueError as error:
            yield f"{name}: {error}"
    if action.attempt < 1:
        yield f"{name} is said to be at attempt {action.attempt}"
    if action.state is ActionState.STARTED and action.intent_at is None:
        yield f"{name} was begun at no time"
    times = [at for at in (action.intent_at, action.sent_at, action.ended_at) if at is not None]
    latest = max(times, default=now)
    if latest > now + FUTURE:
        yield f"{name} happened at {latest.isoformat()}, which is yet to come: a clock was set back"


def _in_its_order(steps: Collection[Step]) -> Iterator[str]:
    by_phase = {step.phase: step for step in steps}
    last = max((PHASES.index(phase) for phase in by_phase), default=0)
    for phase in PHASES[:last]:
        step = by_phase.get(phase)
        if step is None or step.status not in OVER:
            stands = "is missing" if step is None else f"is {step.status.value}"
            yield f"its step {PHASES[last].value} was begun, but {phase.value} before it {stands}"


def _against_the_plan(job: Job, steps: Collection[Step], actions: Collection[Action]) -> Iterator[str]:
    known = {(action.kind, action.target) for action in actions}
    over = {step.phase for step in steps if step.status is StepStatus.COMPLETED}
    for planned in job.plan.actions:
        expected = planned.phase in over and ROWS_OF.get(planned.phase) is planned.kind
        if expected and (planned.kind, planned.target) not in known:
            yield f"its step {planned.phase.value} is completed, but no row tells of: {planned.sentence}"


def _against_each_other(job: Job, actions: Collection[Action]) -> Iterator[str]:
    begun = [one for one in actions if one.state not in (ActionState.SKIPPED, ActionState.PLANNED)]
    reverts = {one.target.volume_id: one for one in actions if one.kind is ActionKind.REVERT_SNAPSHOT}
    if not job.reverted and any(one.kind is ActionKind.REVERT_SNAPSHOT for one in begun):
        yield "a revert was begun, but the run is said to stand before its point of no return"
    for one in begun:
        revert = reverts.get(one.target.volume_id) if one.kind is ActionKind.ATTACH_VOLUME else None
        if revert is not None and not one.target.unexported and revert.state in UNSETTLED:
            yield f"the action {one.id} attached a volume whose revert {revert.id} is {revert.state.value}"
