"""One claimed job at work: what it may use, what is journaled of it, and how it can end early."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from oma.domain.actions import Action, ActionKind, PlannedAction, Target, Upstream
from oma.domain.errors import Code
from oma.domain.evidence import GuardLimits
from oma.domain.forcing import carried_evidence
from oma.domain.jobs import ClaimedJob, Step
from oma.domain.plan import Plan
from oma.domain.states import DONE_ACTION_STATES, ActionState, Phase, StepStatus
from oma.ports import Clock, Cloud, Fault, Ids, Inventory, JournalStore, UpstreamError, Volumes
from oma.workflow.bus import EventBus
from oma.workflow.journal import Journal
from oma.workflow.pace import Pace
from oma.workflow.waves import Waves


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


@dataclass(frozen=True, slots=True)
class Tools:
    """What every run uses. `stop` is set when the daemon drains: runs then end at their next safe point."""

    inventory: Inventory
    journal_store: JournalStore
    cloud: Cloud
    volumes: Volumes
    clock: Clock
    ids: Ids
    bus: EventBus
    limits: GuardLimits = field(default_factory=GuardLimits)
    figures: Figures = field(default_factory=Figures)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    pace: Pace = field(default_factory=Pace)
    analyses: Waves = field(default_factory=Waves)


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


class Run:
    """The state of one run in this process; all that a later process needs stands in the journal."""

    def __init__(self, claimed: ClaimedJob, tools: Tools) -> None:
        self.tools = tools
        self.lease = claimed.lease
        self.job = claimed.job
        self.plan: Plan = claimed.job.plan
        self.journal = Journal(tools.journal_store, claimed.lease, tools.bus, tools.clock)
        self.reverted = claimed.job.reverted
        self.phase = Phase.ANALYZE
        self.overdue = False
        """An operation takes longer than agreed: nothing new is begun in this run."""
        self._steps: dict[Phase, Step] = {step.phase: step for step in claimed.steps}
        self._actions = {(action.kind, action.target): action for action in claimed.actions}
        self._seq = max((action.seq for action in claimed.actions), default=0)

    @property
    def actions(self) -> tuple[Action, ...]:
        """As far as they were begun or skipped."""
        return tuple(self._actions.values())

    @property
    def has_acted(self) -> bool:
        """Whether any action was ever begun: from then on the run parks instead of failing."""
        return any(action.state is not ActionState.SKIPPED for action in self._actions.values())

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
        return action is None or action.state is ActionState.PLANNED

    def is_executed(self, planned: PlannedAction) -> bool:
        """Done by its own proof, not skipped."""
        action = self.find_action(planned)
        return action is not None and action.state in DONE_ACTION_STATES - {ActionState.SKIPPED}

    def step_is_over(self, phase: Phase) -> bool:
        step = self._steps.get(phase)
        return step is not None and step.status in (StepStatus.COMPLETED, StepStatus.SKIPPED)

    def new_action(self, planned: PlannedAction, state: ActionState = ActionState.STARTED) -> Action:
        """A fresh action with an id of its own, or the next attempt of one that was released; not yet journaled."""
        released = self.find_action(planned)
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

    def mark(self, action: Action, state: ActionState, sentence: str) -> Action:
        return self.remember(replace(action, state=state, sentence=sentence))

    def name_of(self, target: Target) -> str:
        """What an operator calls it."""
        return target.volume_name or target.volume_id or target.vm_id or "the records"
