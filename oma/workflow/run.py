"""One claimed job at work: what it may use, what is journaled of it, and how it can end early."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from oma.domain.actions import MARKER_KINDS, Action, ActionKind, PlannedAction, Target, Upstream
from oma.domain.changes import ActionEnded
from oma.domain.errors import Code
from oma.domain.evidence import GuardLimits
from oma.domain.forcing import carried_evidence, next_attempt
from oma.domain.jobs import ClaimedJob, Step
from oma.domain.plan import Plan
from oma.domain.states import DONE_ACTION_STATES, ActionState, Phase, StepStatus
from oma.domain.undoing import CancelAsked
from oma.ports import Clock, Cloud, Fault, Ids, Inventory, JournalStore, UpstreamError, Volumes
from oma.workflow.brakes import StopSign
from oma.workflow.bus import EventBus
from oma.workflow.journal import Journal
from oma.workflow.leases import LeaseTimes
from oma.workflow.outages import NoOutages, Outages
from oma.workflow.pace import Pace
from oma.workflow.retry import RetryPolicies
from oma.workflow.waves import Waves

UNDONE: Final = frozenset({ActionState.ROLLED_BACK, ActionState.MANUAL_MARKED_AS_ROLLED_BACK})
"""It did not happen: its id is spent, or a person said so."""
OPEN_AGAIN: Final = frozenset({ActionState.PLANNED, *UNDONE})
"""Released for another attempt, which travels under another id."""

FOLLOW_S: Final = 7200.0
CANCEL_PATIENCE_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Figures:
    """How long things may take, in seconds, and how many at once."""

    lease_s: float = 30.0
    expires_s: float = 60.0
    operation_timeout_s: float = 60.0
    observe_timeout_s: float = 20.0
    busy_wait_s: float = 600.0
    settle_s: float = 10.0
    """How long CloudStack and the OMA may take to show what an ended job has done."""
    parallel: int = 16
    stopped_again_s: float = 60.0
    """After a forced stop: how far apart `Stopped` is seen twice before a revert."""
    stop_wait_s: float = 900.0
    """How long a stop's own job is followed; one that never ends must not keep the run for ever."""
    follow_s: float = FOLLOW_S
    """How long every other call is followed, but a revert: a job that is only slow is never given up on."""
    cancel_patience_s: float = CANCEL_PATIENCE_S
    """How long a call that was sent is followed before a person's cancel is heeded under it."""
    late_s: float = 60.0
    """How long after its `expires` a call may still come in, where no id tells that it never did."""
    job_memory_s: float = 43_200.0
    """How long "I don't know that job" means that it never arrived: half of CloudStack's `job.expire.minutes`."""
    revert_window_s: float = 5400.0
    """How long the hypervisor may work on after a revert's job ended without success."""
    revert_attempts: int = 2
    """After so many attempts a revert that is not proven parks the run."""
    job_recoveries: int = 5
    """Times in a row that a job is taken over from a holder that died, before a person has to look at it."""
    retries: RetryPolicies = field(default_factory=RetryPolicies)


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run uses. `stop` is set when the daemon drains or a person pauses the run, which then ends at its next
    safe point.
    """

    inventory: Inventory
    journal_store: JournalStore
    cloud: Cloud
    volumes: Volumes
    clock: Clock
    ids: Ids
    bus: EventBus
    limits: GuardLimits = field(default_factory=GuardLimits)
    figures: Figures = field(default_factory=Figures)
    stop: StopSign = field(default_factory=asyncio.Event)
    pace: Pace = field(default_factory=Pace)
    analyses: Waves = field(default_factory=Waves)
    outages: Outages = field(default_factory=NoOutages)
    leases: LeaseTimes | None = None
    """Kept by whoever renews the leases; without it a lease lasts `figures.lease_s`."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that did not go well; `unknown` says that its effect cannot be told."""

    code: Code
    sentence: str
    phase: Phase
    action: Action | None = None
    upstream: Upstream | None = None
    unknown: bool = False
    evidence: dict[str, Any] = field(default_factory=dict)
    guard: Code | None = None
    """As what a guard would refuse it; a run that has not acted yet is then refused so."""
    issue_kind: str | None = None
    """The kind of its issue where that is neither the action's nor the phase's."""
    target: Target | None = None
    """What it is about where that is no action."""


def code_of(error: UpstreamError) -> Code:
    """A broken answer is an error, no answer a time-out, told apart by who was asked."""
    cloud = error.upstream.system == "CloudStack"
    if error.fault in (Fault.NO_ANSWER, Fault.NOT_SENT):
        return Code.CLOUDSTACK_TIMEOUT if cloud else Code.VOLUME_DAEMON_TIMEOUT
    return Code.CLOUDSTACK_ERROR if cloud else Code.VOLUME_DAEMON_ERROR


class Parked(Exception):
    """The run cannot go on by itself. Nothing more is sent."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__(failures[0].sentence)
        self.failures = tuple(failures)


class Stopped(Exception):
    """The daemon drains; the job is at a safe point and will be gone on with."""


class Cancelled(Exception):
    """A person wants the run to stop; it is between two actions."""

    def __init__(self, asked: CancelAsked) -> None:
        super().__init__(asked.sentence)
        self.asked = asked


class Run:
    """The state of one run in this process; all that a later process needs stands in the journal."""

    def __init__(self, claimed: ClaimedJob, tools: Tools) -> None:
        self.tools = tools
        self.lease = claimed.lease
        self.job = claimed.job
        self.plan: Plan = claimed.job.plan
        self.journal = Journal(tools.journal_store, claimed.lease, tools.bus, tools.clock)
        self.reverted = claimed.job.reverted
        self.undoing = claimed.job.undoing
        self.phase = Phase.ANALYZE
        self.overdue = False
        """An operation takes longer than agreed: nothing new is begun in this run."""
        self.unmarking: list[Action] = []
        """What takes this run's markers off, once the transaction that ends it has committed."""
        self._steps: dict[Phase, Step] = {step.phase: step for step in claimed.steps}
        self._found = {(action.id, action.attempt) for action in claimed.actions}
        self._actions = {(action.kind, action.target): action for action in claimed.actions}
        self._seq = max((action.seq for action in claimed.actions), default=0)

    @property
    def actions(self) -> tuple[Action, ...]:
        """As far as they were begun or skipped."""
        return tuple(self._actions.values())

    @property
    def has_open_actions(self) -> bool:
        """Some were begun whose end is not known; they are followed before anything else is decided."""
        return any(action.state is ActionState.STARTED for action in self._actions.values())

    @property
    def has_acted(self) -> bool:
        """Whether any action but a marker was ever begun: from then on the run parks instead of failing."""
        begun = (action for action in self._actions.values() if action.kind not in MARKER_KINDS)
        return any(action.state is not ActionState.SKIPPED for action in begun)

    def lease_left_s(self) -> float:
        """Seconds that this run's lease lasts at least."""
        left_s = self.tools.leases.left_s(self.job.id) if self.tools.leases is not None else None
        return self.tools.figures.lease_s if left_s is None else left_s

    def began(self, action: Action) -> bool:
        """Under this very lease, not by whoever held the job before."""
        return (action.id, action.attempt) not in self._found

    async def stop_if_away(self, *targets: str) -> None:
        """Before a silence is taken for a failure: raises `Stopped` where one of these is away altogether.

        Whoever claims the run when it is back takes up what was begun. Also raises it where the run is to stop anyway.
        """
        for target in targets:
            if self.tools.stop.is_set() or await self.tools.outages.find_outage(target) is not None:
                raise Stopped

    async def heed_cancel(self) -> None:
        """Between two actions: raises `Cancelled` where a person wants the run to stop. On its way back it does not."""
        if self.undoing is not None:
            return
        asked = await self.tools.journal_store.find_cancel(self.job.id)
        if asked is not None:
            raise Cancelled(asked)

    def planned(self, phase: Phase, *kinds: ActionKind) -> list[PlannedAction]:
        return [action for action in self.plan.actions if action.phase is phase and (not kinds or action.kind in kinds)]

    def find_action(self, planned: PlannedAction) -> Action | None:
        return self._actions.get((planned.kind, planned.target))

    def is_done(self, planned: PlannedAction) -> bool:
        action = self.find_action(planned)
        return action is not None and action.state in DONE_ACTION_STATES

    def is_unsent(self, planned: PlannedAction) -> bool:
        """Not begun yet, or begun by an earlier process that may not have sent it: the world is looked at first."""
        action = self.find_action(planned)
        return self.is_unbegun(planned) or (
            action is not None and action.state is ActionState.STARTED and action.remote_id is None
        )

    def is_unbegun(self, planned: PlannedAction) -> bool:
        """Never begun, or released for another attempt that has not begun yet."""
        action = self.find_action(planned)
        return action is None or action.state in OPEN_AGAIN

    def is_executed(self, planned: PlannedAction) -> bool:
        """Done by its own proof or a person's word, not skipped; a word is no proof of a revert."""
        action = self.find_action(planned)
        if planned.kind is ActionKind.REVERT_SNAPSHOT:
            return action is not None and action.state is ActionState.EXECUTED
        return action is not None and action.state in DONE_ACTION_STATES - {ActionState.SKIPPED}

    def step_is_over(self, phase: Phase) -> bool:
        step = self._steps.get(phase)
        return step is not None and step.status in (StepStatus.COMPLETED, StepStatus.SKIPPED)

    def new_action(self, planned: PlannedAction, state: ActionState = ActionState.STARTED) -> Action:
        """A fresh action with an id of its own, or the next attempt of one that was released; not yet journaled."""
        released = self.find_action(planned)
        if released is not None and released.state in UNDONE:
            released = next_attempt(released)
        if released is not None and released.state is ActionState.PLANNED:
            now = self.tools.clock.now()
            return replace(
                released,
                state=state,
                intent_at=now,
                evidence=carried_evidence(released),
                error=None,
                sentence=planned.sentence,
            )
        self._seq += 1
        return Action(
            id=self.tools.ids.new_id(),
            job_id=self.job.id,
            phase=planned.phase,
            seq=self._seq,
            kind=planned.kind,
            target=planned.target,
            state=state,
            intent_at=self.tools.clock.now(),
            sentence=planned.sentence,
        )

    def remember(self, action: Action) -> Action:
        self._actions[(action.kind, action.target)] = action
        return action

    def forget(self, planned: PlannedAction) -> None:
        """What it did no longer holds: done again it is an action of its own."""
        self._actions.pop((planned.kind, planned.target), None)

    def mark(self, action: Action, state: ActionState, sentence: str) -> Action:
        return self.remember(replace(action, state=state, sentence=sentence, ended_at=self.tools.clock.now()))

    def mark_ended(self, action: Action, ended: ActionEnded) -> Action:
        """As it was just journaled, so that this process decides by the same as one after it."""
        return self.mark(replace(action, evidence=ended.evidence, error=ended.error), ended.state, ended.sentence)

    def name_of(self, target: Target) -> str:
        """What an operator calls it."""
        return target.volume_name or target.volume_id or target.vm_id or "the records"
