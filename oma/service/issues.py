"""What only a person can settle: looking at issues, and saying how one ended, against a fresh look at the world."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from oma.domain.actions import Action, ActionKind
from oma.domain.errors import Code, ConcurrentChange, OmaError
from oma.domain.issues import FOREIGN_MARKED, SELF_CLOSING_KINDS, VOLUME_GONE, Issue
from oma.domain.jobs import CleanupRequest, Job
from oma.domain.resolving import (
    ENDED_FOR_GOOD,
    ActionMark,
    Contradicted,
    IssueResolved,
    NotOffered,
    Resolution,
    Settled,
    ended_by_of,
    job_ended_by,
    offered_without_action,
    window_end,
)
from oma.domain.states import IssueState, JobState
from oma.domain.whole_copies import is_in_doubt
from oma.domain.words import Words
from oma.ports import IssueFilter, Page
from oma.service.audit import audit_refusal
from oma.service.deciding import contradicted, look_and_decide
from oma.service.deps import Deps
from oma.service.ending import build_fencing, find_parked, judge_end, still_unreadable
from oma.service.epochs import refuse_older
from oma.service.lifting import confirm_lifted
from oma.service.losing import confirm_gone
from oma.service.marking import Word, build_mark, build_whole_copies, build_whole_copy_of

BOTH = (Resolution.APPLIED, Resolution.ROLLED_BACK)
LOOKS_AGAIN = "The run looks at the world again and goes on where it may."


@dataclass(frozen=True, slots=True)
class Said:
    """A person's word about an issue; whoever insists needs rights that nobody has before there are accounts."""

    resolution: Resolution
    notes: str
    actor: str = "api"
    insist: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the issue stands after that word. `waits_until` may be unknown: while a revert's own job is under way."""

    settled: Settled
    sentence: str
    waits: bool
    waits_until: datetime | None


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the look at the world came to."""

    sentence: str
    evidence: dict[str, Any]
    marks: tuple[ActionMark, ...]
    waits: bool = False
    ended_by: datetime | None = None


async def list_issues(deps: Deps, where: IssueFilter, limit: int, cursor: str | None) -> Page[Issue]:
    return await deps.jobs.list_issue_page(where, limit, cursor)


async def get_issue(deps: Deps, issue_id: str) -> Issue:
    issue = await deps.jobs.find_issue(issue_id)
    if issue is None:
        raise OmaError(Code.ISSUE_NOT_FOUND, f"No issue has the id {issue_id!r}; `oma issue list` shows them.")
    return issue


async def get_next_issue(deps: Deps) -> Issue:
    """The most urgent open one."""
    issue = await deps.jobs.find_next_issue()
    if issue is None:
        raise OmaError(Code.ISSUE_NOT_FOUND, "No issue is open; nothing waits for a person.")
    return issue


async def resolve_issue(deps: Deps, issue_id: str, said: Said) -> Outcome:
    """Looks at the world anew, and takes the person's word where nothing contradicts it.

    Raises `issue_not_found`, and audited: `resolution_contradicted` with the evidence, `state_unknown` where somebody
    does not answer, `cleanup_in_progress` while the run works, `invalid_request` for a word that makes no sense here.
    """
    issue = await get_issue(deps, issue_id)
    try:
        return await _resolve(deps, issue, said)
    except OmaError as error:
        error.fields.setdefault("issue_ids", [issue.id])
        asked = CleanupRequest(
            issue.vm_name, context_id=issue.context_id, requested_by=said.actor, words=Words(reason=said.notes)
        )
        await audit_refusal(deps, asked, error, issue.job_id)
        raise


async def _resolve(deps: Deps, issue: Issue, said: Said) -> Outcome:
    if deps.stopping.is_set():
        raise OmaError(Code.SHUTTING_DOWN, "The daemon is stopping; ask again in a moment.")
    await refuse_older(deps.epochs)
    if said.insist:
        raise OmaError(
            Code.INVALID_REQUEST,
            "Only an admin may insist against what the world shows, and this version knows no admins.",
            field="insist",
            allowed="false",
            next="Bring the world and the claim to agree, or say another resolution.",
        )
    if issue.state is not IssueState.OPEN:
        return _repeated(issue, said)
    if issue.kind in SELF_CLOSING_KINDS and issue.kind != FOREIGN_MARKED:
        raise OmaError(
            Code.INVALID_REQUEST,
            "Nobody can settle this issue by a word: it closes itself as soon as its cause is gone.",
            field="resolution",
            vm_name=issue.vm_name,
            next="Follow its guidance: oma issue get -c " + issue.id,
        )
    if said.resolution is Resolution.RESYNC and issue.kind in ENDED_FOR_GOOD and issue.job_id is not None:
        return await _end_run(deps, issue, said)
    run = await _read_run(deps, issue, said)
    if run is None:
        return await _end_run(deps, issue, said)
    job, actions = run
    if job is not None and job.state in (JobState.QUEUED, JobState.RUNNING):
        raise OmaError(
            Code.CLEANUP_IN_PROGRESS,
            f"The run {job.id} of {job.vm_name} is {job.state.value}; its issues are settled while it is parked.",
            vm_name=job.vm_name,
            job_id=job.id,
            holder=job.lease_owner or job.state.value,
            next=f"Follow it: oma jobs follow {job.id}",
        )
    judged = await _judge(deps, issue, job, actions, said)
    settled = await _write(deps, issue, _build_resolved(deps, issue, said, judged))
    if settled.resumed:
        deps.wake.set()
    until = window_end(judged.ended_by, deps.revert_window_s) if judged.waits and judged.ended_by else None
    over = until is not None and until <= deps.clock.now()
    return Outcome(settled, judged.sentence, judged.waits and not over, None if over else until)


async def _read_run(deps: Deps, issue: Issue, said: Said) -> tuple[Job | None, list[Action]] | None:
    """None where its rows can't be read, and the word ends it for good; any other is contradicted then."""
    try:
        job = await deps.jobs.find_job(issue.job_id) if issue.job_id is not None else None
        return job, list(await deps.jobs.list_actions(job.id)) if job is not None else []
    except OmaError as error:
        if error.code is not Code.INTERNAL_ERROR:
            raise
        if said.resolution is Resolution.RESYNC:
            return None
        raise still_unreadable(issue, error) from error


async def _end_run(deps: Deps, issue: Issue, said: Said) -> Outcome:
    """At the first word its orders become older ones, and the issue keeps since when nothing of it is under way."""
    word = Word(said.resolution, said.actor, said.notes, deps.clock.now())
    remains = await find_parked(deps, issue)
    fencing = build_fencing(issue, word, remains)
    if fencing is not None:
        issue = (await _write(deps, issue, fencing)).issue
        remains = await find_parked(deps, issue)
    ending = await judge_end(deps, issue, word, remains)
    if ending.resolved is None:
        settled = Settled(issue, JobState.PARKED, resumed=False, open_issue_ids=(issue.id,))
    else:
        settled = await _write(deps, issue, ending.resolved)
    return Outcome(settled, ending.sentence, ending.waits_until is not None, ending.waits_until)


def _build_resolved(deps: Deps, issue: Issue, said: Said, judged: _Judged) -> IssueResolved:
    return IssueResolved(
        issue_id=issue.id,
        resolution=said.resolution,
        notes=said.notes,
        actor=said.actor,
        at=deps.clock.now(),
        sentence=judged.sentence,
        evidence=judged.evidence,
        marks=judged.marks,
    )


async def _write(deps: Deps, issue: Issue, resolved: IssueResolved) -> Settled:
    try:
        return await deps.journal.resolve_issue(resolved)
    except ConcurrentChange as error:
        raise OmaError(
            Code.STATE_UNKNOWN,
            f"Somebody else changed this issue or its action meanwhile ({error}); nothing was written.",
            vm_name=issue.vm_name,
            next=f"Look again, then say it again: oma issue get -c {issue.id}",
        ) from error


def _repeated(issue: Issue, said: Said) -> Outcome:
    """The same word again changes nothing; another one comes too late."""
    if issue.resolution == said.resolution.value:
        return Outcome(Settled(issue, None, resumed=False, open_issue_ids=()), "It was settled before.", False, None)
    raise OmaError(
        Code.INVALID_REQUEST,
        f"The issue {issue.id} was resolved as {issue.resolution} by {issue.actor or 'nobody'} already.",
        field="resolution",
        allowed=[str(issue.resolution)],
        vm_name=issue.vm_name,
        next="See what became of it: oma issue get -c " + issue.id,
    )


async def _judge(deps: Deps, issue: Issue, job: Job | None, actions: list[Action], said: Said) -> _Judged:
    if issue.kind == FOREIGN_MARKED:
        return _Judged(await confirm_lifted(deps, issue, said.resolution), {}, ())
    action = next((one for one in actions if one.id == issue.action_id), None)
    if issue.kind == VOLUME_GONE and job is not None and said.resolution is Resolution.RESYNC:
        return await _judge_gone(deps, issue, job, actions, said)
    if action is None or job is None:
        return _judge_without_action(deps, issue, job, actions, said)
    if job.undoing is not None:
        if said.resolution not in BOTH:
            _refuse_word(issue, BOTH, said)
        # Whatever is said of one of its actions: where the volumes are decides, and the run asks that by itself.
        return _Judged(f"The run is on its way back. {LOOKS_AGAIN}", {}, ())
    seen, decision = await look_and_decide(deps, issue, job, action, said.resolution)
    if isinstance(decision, NotOffered):
        _refuse_word(issue, decision.allowed, said)
    if isinstance(decision, Contradicted):
        raise contradicted(issue, said.resolution, decision, seen.evidence)
    now = deps.clock.now()
    ended_by = job_ended_by(action, seen, now) if decision.waits else None
    marks: tuple[ActionMark, ...] = ()
    if decision.state is not None:
        word = Word(said.resolution, said.actor, said.notes, now)
        marks = (build_mark(word, action, decision.state, seen=seen.evidence, ended_by=ended_by),)
        if action.kind is ActionKind.ATTACH_VOLUME and said.resolution is Resolution.RESYNC:
            marks += build_whole_copy_of(word, action.target, job, actions, deps.ids)
    return _Judged(decision.sentence, seen.evidence, marks, decision.waits, ended_by)


async def _judge_gone(deps: Deps, issue: Issue, job: Job, actions: list[Action], said: Said) -> _Judged:
    """Of a volume that needed no revert."""
    if job.undoing is not None:
        _refuse_word(issue, BOTH, said)
    gone, sentence = await confirm_gone(deps, issue)
    word = Word(said.resolution, said.actor, said.notes, deps.clock.now())
    return _Judged(sentence, {}, build_whole_copy_of(word, gone, job, actions, deps.ids))


def _judge_without_action(deps: Deps, issue: Issue, job: Job | None, actions: list[Action], said: Said) -> _Judged:
    """About what the run saw: it looks again by itself. `RESYNC` gives up reverts, and their disks are copied whole."""
    in_doubt = job is not None and is_in_doubt(issue.kind, job.plan, actions)
    allowed = offered_without_action(issue.kind, in_doubt=in_doubt)
    if said.resolution not in allowed:
        _refuse_word(issue, allowed, said)
    if said.resolution is not Resolution.RESYNC or job is None:
        return _Judged(LOOKS_AGAIN, {}, ())
    word = Word(said.resolution, said.actor, said.notes, deps.clock.now())
    marks = build_whole_copies(word, issue.kind, job, actions, deps.ids)
    if not marks:
        sentence = f"No revert of {job.vm_name} is left that this word could give up."
        decision = Contradicted(sentence, f"See how each of them stands: oma jobs show {job.id}")
        states = {one.words: one.state.value for one in actions if one.kind is ActionKind.REVERT_SNAPSHOT}
        raise contradicted(issue, said.resolution, decision, {"reverts": states})
    names = ", ".join(one.action.target.volume_name or "" for one in marks)
    waited = max((at for one in marks if (at := ended_by_of(one.action)) is not None), default=None)
    sentence = f"Given up, to be copied whole: {names}. No disk waits for a revert any more."
    return _Judged(sentence, {}, marks, waited is not None, waited)


def _refuse_word(issue: Issue, allowed: tuple[Resolution, ...], said: Said) -> NoReturn:
    names = [one.value for one in allowed]
    raise OmaError(
        Code.INVALID_REQUEST,
        f"{said.resolution.value} makes no sense for {issue.kind}; possible: {', '.join(names)}.",
        field="resolution",
        allowed=names,
        vm_name=issue.vm_name,
    )
