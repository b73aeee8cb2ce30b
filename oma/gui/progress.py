"""What a job's page shows: phases, actions, the answer to "is my replica good?", issues and the end of the log."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from oma.domain.actions import Action, Target
from oma.domain.issues import Issue
from oma.domain.jobs import Job, LogLine, Step
from oma.domain.states import PHASES, JobState, Phase, phase_seq
from oma.gui import urls, words
from oma.service import queries
from oma.service.answers import duration_s
from oma.service.deps import Deps
from oma.service.queries import JobView

LOG_TAIL: Final = 40
LOG_PAGE: Final = 500
NOT_ENDED: Final = frozenset({JobState.QUEUED, JobState.RUNNING})
WAITING: Final = words.Badge("calm", "not begun")


@dataclass(frozen=True, slots=True)
class ShownAction:
    badge: words.Badge
    kind: str
    target: str
    sentence: str
    error: str
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class ShownPhase:
    seq: int
    phase: Phase
    title: str
    badge: words.Badge
    duration_s: float | None
    actions: tuple[ShownAction, ...]
    error: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class ShownFailure:
    """What stopped the run, with the other system's own words."""

    sentence: str
    code: str
    where: str
    upstream: str
    guidance: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """One job, ready to be shown. `ended` stops the live updates."""

    job: Job
    badge: words.Badge
    ended: bool
    sentence: str
    done_phases: int
    duration_s: float | None
    duration_lead: str
    phases: tuple[ShownPhase, ...]
    replica: words.Badge | None
    next_step: str
    message: str
    failure: ShownFailure | None
    issues: tuple[Issue, ...]
    log: tuple[LogLine, ...]
    log_is_cut: bool
    vm_url: str
    api_url: str
    events_url: str


async def build_progress(deps: Deps, job_id: str) -> Progress:
    """Raises `OmaError` with `job_not_found`."""
    view = await queries.get_job_view(deps, job_id)
    lines, is_cut = await _read_log_tail(deps, job_id)
    job = view.job
    result = job.result or {}
    return Progress(
        job=job,
        badge=words.JOB_BADGES[job.state],
        ended=job.state not in NOT_ENDED,
        sentence=_current_sentence(job, lines),
        done_phases=_done_phases(job),
        duration_s=duration_s(job, deps.clock.now()),
        duration_lead=_duration_lead(job.state),
        phases=build_phases(view, deps.clock.now()),
        replica=_replica(job, result),
        next_step=str(result.get("next", "")),
        message=str(result.get("message", "")),
        failure=build_failure(job),
        issues=view.issues,
        log=lines,
        log_is_cut=is_cut,
        vm_url=urls.estate_url(q=job.vm_name),
        api_url=f"/api/v1{urls.job_url(job.id)}",
        events_url=f"/api/v1{urls.job_url(job.id)}/events",
    )


def build_phases(view: JobView, now: datetime) -> tuple[ShownPhase, ...]:
    """All five, begun or not."""
    steps = {step.phase: step for step in view.steps}
    return tuple(
        _shown_phase(phase, steps.get(phase), [action for action in view.actions if action.phase is phase], view, now)
        for phase in PHASES
    )


def _shown_phase(phase: Phase, step: Step | None, actions: list[Action], view: JobView, now: datetime) -> ShownPhase:
    running = step is not None and step.started_at is not None and step.completed_at is None
    return ShownPhase(
        seq=phase_seq(phase),
        phase=phase,
        title=words.PHASE_TITLES[phase],
        badge=words.STEP_BADGES[step.status] if step else WAITING,
        duration_s=_open_duration_s(step, now) if step and running else step.duration_s if step else None,
        actions=tuple(_shown_action(action) for action in actions),
        error=(step.error_message or "") if step else "",
        is_current=view.job.state is JobState.RUNNING and view.job.phase is phase,
    )


def _open_duration_s(step: Step, now: datetime) -> float | None:
    return None if step.started_at is None else (now - step.started_at).total_seconds()


def _shown_action(action: Action) -> ShownAction:
    ended = action.ended_at is not None and action.intent_at is not None
    return ShownAction(
        badge=words.ACTION_BADGES[action.state],
        kind=action.kind.value,
        target=target_words(action.target),
        sentence=action.sentence,
        error=error_words(action.error),
        duration_s=(action.ended_at - action.intent_at).total_seconds()
        if ended and action.ended_at and action.intent_at
        else None,
    )


def target_words(target: Target) -> str:
    """The volume's name where there is one, else whatever identifies the target."""
    return target.volume_name or target.volume_id or target.vm_id or target.snapshot_id or ""


def error_words(error: dict[str, Any] | None) -> str:
    """The other system's own code and text, whichever of them is there."""
    if not error:
        return ""
    upstream = error.get("upstream")
    if isinstance(upstream, dict):
        return upstream_words(upstream)
    return str(error.get("detail") or error.get("text") or error.get("code") or "")


def upstream_words(upstream: dict[str, Any]) -> str:
    head = " ".join(str(part) for part in (upstream.get("system"), upstream.get("code")) if part)
    return f"{head}: {upstream.get('text', '')}" if head else str(upstream.get("text", ""))


def build_failure(job: Job) -> ShownFailure | None:
    error = job.error
    if not error:
        return None
    upstream = error.get("upstream")
    guidance = error.get("guidance") or ()
    return ShownFailure(
        sentence=str(error.get("detail", f"The clean-up ended {job.state.value}.")),
        code=str(error.get("code", "")),
        where=" · ".join(str(error[key]) for key in ("phase", "action") if isinstance(error.get(key), str)),
        upstream=upstream_words(upstream) if isinstance(upstream, dict) else "",
        guidance=(guidance,) if isinstance(guidance, str) else tuple(str(step) for step in guidance),
    )


def _replica(job: Job, result: dict[str, Any]) -> words.Badge | None:
    replica = result.get("replica")
    if replica is None and job.state is not JobState.COMPLETED:
        return None
    return words.REPLICA_BADGES.get(str(replica), words.REPLICA_BADGES["unknown"])


def _duration_lead(state: JobState) -> str:
    if state in NOT_ENDED:
        return "running for"
    return "took" if state is JobState.COMPLETED else "stopped after"


def _done_phases(job: Job) -> int:
    if job.state is JobState.COMPLETED:
        return len(PHASES)
    return 0 if job.phase is None else phase_seq(job.phase) - 1


def _current_sentence(job: Job, lines: tuple[LogLine, ...]) -> str:
    if lines:
        return lines[-1].message
    return "Waits for its turn." if job.state is JobState.QUEUED else ""


async def _read_log_tail(deps: Deps, job_id: str) -> tuple[tuple[LogLine, ...], bool]:
    """The last lines, and whether there are earlier ones."""
    tail: deque[LogLine] = deque(maxlen=LOG_TAIL)
    count, cursor = 0, None
    while True:
        page = await queries.list_log(deps, job_id, LOG_PAGE, cursor)
        tail.extend(page.items)
        count += len(page.items)
        cursor = page.next_cursor
        if cursor is None:
            return tuple(tail), count > LOG_TAIL
