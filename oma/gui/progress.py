"""What a job's page shows: phases, actions, the answer to "is my replica good?", issues and the end of the log."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from oma.domain.actions import Action, Target
from oma.domain.forcing import is_forcible
from oma.domain.issues import Issue
from oma.domain.jobs import Job, LogLine, Step
from oma.domain.states import PHASES, JobState, Phase, phase_seq
from oma.domain.verdict import SOURCE_OFF
from oma.domain.words import SILENT
from oma.gui import urls, words
from oma.gui.offers import RESUME, Offer, force_offer
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
class ShownIssue:
    """`title` is what it is about, where the failure above does not say the same already."""

    issue: Issue
    title: str
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
    issues: tuple[ShownIssue, ...]
    resume: Offer | None
    """How a parked run may go on by a person's word; None where something has to be settled first."""
    resume_url: str
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
    result, failure = job.result or {}, build_failure(job)
    ending = result or job.error or {}
    return Progress(
        job=job,
        badge=words.JOB_BADGES[job.state],
        ended=job.state not in NOT_ENDED,
        sentence=_current_sentence(job, lines),
        done_phases=_done_phases(job),
        duration_s=duration_s(job, deps.clock.now()),
        duration_lead=_duration_lead(job.state),
        phases=build_phases(view, deps.clock.now(), failure),
        replica=_replica(job, ending),
        next_step=str(ending.get("next", "")).removeprefix(SOURCE_OFF).strip(),
        message=str(result.get("message", "")),
        failure=failure,
        issues=build_issues(view.issues, failure),
        resume=resume_offer(job, view.issues),
        resume_url=f"{urls.job_url(job.id)}/resume",
        log=lines,
        log_is_cut=is_cut,
        vm_url=urls.estate_url(q=job.vm_name),
        api_url=f"/api/v1{urls.job_url(job.id)}",
        events_url=f"/api/v1{urls.job_url(job.id)}/events",
    )


def build_issues(issues: tuple[Issue, ...], failure: ShownFailure | None) -> tuple[ShownIssue, ...]:
    """What stands above them already is not said again."""
    said = failure.sentence if failure else ""
    return tuple(
        ShownIssue(issue, "" if issue.title == said else issue.title, words.unnumbered(issue.guidance))
        for issue in issues
    )


def resume_offer(job: Job, issues: tuple[Issue, ...]) -> Offer | None:
    """Without an open issue it just goes on; past issues that force may pass only with a reason."""
    if job.state is not JobState.PARKED or not all(is_forcible(issue) for issue in issues):
        return None
    return force_offer(SILENT) if issues else RESUME


def build_phases(view: JobView, now: datetime, failure: ShownFailure | None = None) -> tuple[ShownPhase, ...]:
    """All five, begun or not."""
    steps = {step.phase: step for step in view.steps}
    shown = _Shown(view, now, failure)
    return tuple(
        _shown_phase(phase, steps.get(phase), [action for action in view.actions if action.phase is phase], shown)
        for phase in PHASES
    )


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the phases are shown of, and beside what."""

    view: JobView
    now: datetime
    failure: ShownFailure | None

    def once(self, sentence: str) -> str:
        """Nothing, where the failure at the top of the page says it already."""
        failure = self.failure
        if failure is None or not sentence:
            return sentence
        text = sentence.partition(": ")[2] or sentence
        told = sentence in (failure.sentence, failure.upstream) or text in failure.sentence
        return "" if told else sentence


def _shown_phase(phase: Phase, step: Step | None, actions: list[Action], shown: _Shown) -> ShownPhase:
    running = step is not None and step.started_at is not None and step.completed_at is None
    duration = step.duration_s if step else None
    job = shown.view.job
    return ShownPhase(
        seq=phase_seq(phase),
        phase=phase,
        title=words.PHASE_TITLES[phase],
        badge=words.STEP_BADGES[step.status] if step else WAITING,
        duration_s=_open_duration_s(step, shown.now) if step and running else duration,
        actions=tuple(_shown_action(action, shown) for action in actions),
        error=shown.once((step.error_message or "") if step else ""),
        is_current=job.state is JobState.RUNNING and job.phase is phase,
    )


def _open_duration_s(step: Step, now: datetime) -> float | None:
    return None if step.started_at is None else (now - step.started_at).total_seconds()


def _shown_action(action: Action, shown: _Shown) -> ShownAction:
    ended = action.ended_at is not None and action.intent_at is not None
    return ShownAction(
        badge=words.ACTION_BADGES[action.state],
        kind=action.kind.value,
        target=target_words(action.target),
        sentence=shown.once(action.sentence) or capital(action.words),
        error=shown.once(error_words(action.error)),
        duration_s=(action.ended_at - action.intent_at).total_seconds()
        if ended and action.ended_at and action.intent_at
        else None,
    )


def capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


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


def _upstream_once(upstream: dict[str, Any], sentence: str) -> str:
    """Its code alone, where the sentence holds its text already."""
    text = str(upstream.get("text") or "")
    if text and text in sentence:
        return upstream_words({**upstream, "text": ""}).rstrip(": ")
    return upstream_words(upstream)


def build_failure(job: Job) -> ShownFailure | None:
    error = job.error
    if not error:
        return None
    upstream = error.get("upstream")
    guidance = error.get("guidance") or ()
    steps = (guidance,) if isinstance(guidance, str) else tuple(str(step) for step in guidance)
    return ShownFailure(
        sentence=str(error.get("detail", f"The clean-up ended {job.state.value}.")),
        code=str(error.get("code", "")),
        where=" · ".join(str(error[key]) for key in ("phase", "action") if isinstance(error.get(key), str)),
        upstream=_upstream_once(upstream, str(error.get("detail", ""))) if isinstance(upstream, dict) else "",
        guidance=words.unnumbered(steps),
    )


def _replica(job: Job, ending: dict[str, Any]) -> words.Badge | None:
    replica = ending.get("replica")
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
