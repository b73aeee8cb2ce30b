"""A run that the test moves forward itself, journaled and told as the daemon would."""

from __future__ import annotations

from dataclasses import replace

from oma.domain.actions import Action, ActionKind
from oma.domain.events import EventType
from oma.domain.jobs import Job, Step
from oma.domain.states import PHASES, ActionState, JobState, Phase, StepStatus, phase_seq
from tests.unit.gui import samples
from tests.unit.gui.samples import NOW, ago
from tests.unit.gui.stubs import StubDaemon


class Run:
    """One job, moved by the test; every move is journaled and told as the daemon would."""

    def __init__(self, daemon: StubDaemon, job: Job) -> None:
        self._estate = daemon.estate
        self.id = job.id

    @property
    def _job(self) -> Job:
        return self._estate.job_rows[self.id]

    def begin(self, phase: Phase) -> None:
        self._estate.put_job(replace(self._job, state=JobState.RUNNING, phase=phase, started_at=ago(seconds=20)))
        self._estate.steps[self.id].append(Step(phase, phase_seq(phase), StepStatus.RUNNING, ago(seconds=8)))
        self._estate.tell(self._job, EventType.STEP_STARTED, f"Began {phase.value}.")

    def act(self, number: int, kind: ActionKind, state: ActionState, sentence: str, volume: int = 1) -> None:
        phase = self._job.phase
        assert phase is not None
        action: Action = samples.action(number, kind, phase, state, job_id=self.id, volume=volume, sentence=sentence)
        kept = [one for one in self._estate.actions[self.id] if one.id != action.id]
        self._estate.actions[self.id] = [*kept, action]
        self._estate.tell(self._job, EventType.ACTION_STARTED, sentence)

    def end_phase(self) -> None:
        steps = self._estate.steps[self.id]
        steps[-1] = replace(steps[-1], status=StepStatus.COMPLETED, completed_at=NOW)
        self._estate.tell(self._job, EventType.STEP_COMPLETED, f"Completed {steps[-1].phase.value}.")

    def complete(self) -> None:
        for phase in PHASES[len(self._estate.steps[self.id]) :]:
            self.begin(phase)
            self.end_phase()
        ended = samples.completed_job(self.id, self._job.vm_name)
        self._estate.put_job(replace(ended, plan=self._job.plan, context_id=self._job.context_id))
        self._estate.tell(self._job, EventType.JOB_COMPLETED, f"Clean-up of {self._job.vm_name} completed.")

    def park(self) -> None:
        steps = self._estate.steps[self.id]
        steps[-1] = replace(steps[-1], status=StepStatus.FAILED, completed_at=NOW, error_message="parked")
        parked = samples.parked_job(self.id, self._job.vm_name)
        self._estate.put_job(replace(parked, plan=self._job.plan, context_id=self._job.context_id))
        self._estate.issues.append(samples.issue(self.id, self._job.vm_name))
        self._estate.tell(self._job, EventType.JOB_PARKED, "The run is parked.")
