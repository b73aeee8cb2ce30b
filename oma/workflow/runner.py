"""One claimed job: next phase, observe, act, verify, commit, until it has ended, parked or reached a safe point."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from oma.domain.changes import JobEnded, JobReleased, StepEnded, StepStarted
from oma.domain.errors import Code, ConcurrentChange, OmaError, Refusal, Refused
from oma.domain.issues import CANCELLED
from oma.domain.jobs import OPERATION, ClaimedJob
from oma.domain.states import PHASES, JobState, Phase, StepStatus
from oma.domain.undoing import CancelAsked, can_turn_back
from oma.domain.verdict import of_partial
from oma.ports import Fault, UpstreamError
from oma.workflow.brakes import stopped_sentence
from oma.workflow.compensation import build_cancelling, build_undoing, go_back, turns_back
from oma.workflow.failures import find_known_failures
from oma.workflow.finishing import unfollowed
from oma.workflow.forcing import leak_sentences, leaks_of
from oma.workflow.look import unless_away
from oma.workflow.parking import park, refuse
from oma.workflow.phases import analyze, detach, reattach, reset, snapshots
from oma.workflow.phases.outcome import PhaseOutcome
from oma.workflow.poison import is_poisoned, park_poisoned
from oma.workflow.released import released_reverts
from oma.workflow.remarking import find_lost_markers
from oma.workflow.replicated import COPY_WHOLE
from oma.workflow.run import Cancelled, Failure, Parked, Run, Stopped, Tools, code_of
from oma.workflow.unbelievable import find_problem, park_unbelievable
from oma.workflow.unmarking import end_markers, unmark

PHASE_RUNS: Final[dict[Phase, Callable[[Run], Awaitable[PhaseOutcome]]]] = {
    Phase.ANALYZE: analyze.run,
    Phase.DETACH: detach.run,
    Phase.SNAPSHOTS: snapshots.run,
    Phase.REATTACH: reattach.run,
}
"""Every phase but the last, which ends the job in its own transaction."""


async def run_job(claimed: ClaimedJob, tools: Tools) -> str:
    """Runs the job to its end, its park or a safe point, and says in a sentence how it went.

    Raises `LeaseLost` when somebody else holds the job now, and `OmaError` `database_unavailable`; in both cases
    whoever claims it next goes on from the journal. Any other exception is a fault of ours; the worker parks the job.
    """
    run = Run(claimed, tools)
    sentence = await _park_unbegun(run, claimed) or await _run(run)
    if run.unmarking:
        await unmark(run)
    return sentence


async def _park_unbegun(run: Run, claimed: ClaimedJob) -> str | None:
    """Before anything is asked: a run that nobody outlives, or whose journal can't be true."""
    if is_poisoned(run, claimed):
        return await park_poisoned(run, claimed)
    problem = find_problem(run, claimed)
    return None if problem is None else await park_unbelievable(run, problem)


async def _run(run: Run) -> str:
    try:
        return await unless_away(run, _drive(run))
    except Stopped:
        sentence = stopped_sentence(run.tools.stop, f"in {run.phase.value}")
        await run.journal.write(JobReleased(sentence))
        return sentence
    except Cancelled as cancelled:
        return await _end_cancelled(run, cancelled.asked)
    except Refused as refused:
        return await refuse(run, refused)
    except Parked as parked:
        return await _end_badly(run, parked.failures)
    except UpstreamError as error:
        return await _end_badly(run, (_failure_of(run, error),))
    except OmaError as error:
        if error.code is Code.DATABASE_UNAVAILABLE:
            raise
        return await _end_badly(run, (Failure(Code.CLEANUP_FAILED, error.sentence, run.phase),))
    except ConcurrentChange as error:
        sentence = f"Somebody else changed a record of this run: {error}"
        return await _end_badly(run, (Failure(Code.CLEANUP_FAILED, sentence, run.phase, unknown=True),))


async def _drive(run: Run) -> str:
    lost = await find_lost_markers(run)
    if lost:
        return await _stop_for_others(run, lost)
    if run.undoing is not None:
        return await go_back(run)
    released = released_reverts(run)
    chosen = PHASES if released else run.job.request.phases
    for phase in PHASES:
        run.phase = phase
        if run.step_is_over(phase):
            continue
        if phase is not Phase.ANALYZE and phase not in chosen:
            await run.journal.write(StepEnded(phase, StepStatus.SKIPPED, "Not asked for."))
            continue
        if run.tools.stop.is_set():
            raise Stopped
        if not run.has_open_actions or turns_back(run):
            await run.heed_cancel()
        await run.journal.write(StepStarted(phase, f"{phase.value} begins."))
        if phase is Phase.RESET:
            return await reset.run(run)
        outcome = await PHASE_RUNS[phase](run)
        await run.journal.write(StepEnded(phase, outcome.status, outcome.sentence))
    return await _end_partial(run)


async def _end_partial(run: Run) -> str:
    """The phases asked for are done, the last one was not among them: the VM keeps `cleanup_required`."""
    names = [phase.value for phase in run.job.request.phases if phase is not Phase.ANALYZE] or [Phase.ANALYZE.value]
    sentence = f"Ran {', '.join(names)} for {run.plan.vm_name}; the VM is not cleaned up"
    verdict = of_partial(run.plan, run.actions, leak_sentences(run)).as_json()
    summary = {
        "operation": OPERATION,
        "status": "partial",
        "job_id": run.job.id,
        "ended_at": run.tools.clock.now().isoformat(),
        **verdict,
    }
    leaks = leaks_of(run)
    result = {"partial": True, "message": sentence, **({"leaks": leaks} if leaks else {}), **verdict}
    ended = JobEnded(JobState.COMPLETED, sentence, result=result, summary=summary)
    await run.journal.write(*await end_markers(run), ended)
    return sentence


async def _end_badly(run: Run, failures: tuple[Failure, ...]) -> str:
    """Before the first revert the run goes back where it has moved a volume; else, and later, it parks.

    One that has not touched anything is refused instead, `state_unknown` by default.
    """
    if turns_back(run):
        return await go_back(run, build_undoing(run, failures))
    if run.has_acted:
        return await park(run, (*failures, *unfollowed(run, failures)))
    guarded = [one for one in failures if one.guard is not None] or [failures[0]]
    refusals = tuple(
        Refusal(one.guard or Code.STATE_UNKNOWN, one.sentence, _next_step(one.guard), dict(one.evidence))
        for one in guarded
    )
    return await refuse(run, Refused(refusals, vm_name=run.plan.vm_name))


async def _stop_for_others(run: Run, failures: tuple[Failure, ...]) -> str:
    """Somebody else works on the same things: no way back either."""
    if not run.has_acted:
        return await _end_badly(run, failures)
    run.phase = next((phase for phase in PHASES if not run.step_is_over(phase)), Phase.RESET)
    return await park(run, (*failures, *unfollowed(run, failures)))


async def _end_cancelled(run: Run, asked: CancelAsked) -> str:
    """Between two actions, at a person's word: back where that is possible, else parked, to be gone on with."""
    if can_turn_back(run.actions, reverted=run.reverted):
        return await go_back(run, build_cancelling(run, asked))
    sentence = f"{asked.sentence}; nothing can be undone any more, the way is forward only."
    failure = Failure(Code.CLEANUP_FAILED, sentence, run.phase, evidence=asked.as_json(), issue_kind=CANCELLED)
    known = find_known_failures(run)
    return await park(run, (failure, *known, *unfollowed(run, known)))


def _next_step(guard: Code | None) -> str:
    if guard in (None, Code.STATE_UNKNOWN):
        return "See that CloudStack and the Volume Daemon answer (oma doctor), then ask again."
    if guard is Code.REPLICATED_SINCE_SNAPSHOT:
        return COPY_WHOLE
    return "Wait until that is over, then ask again with a dry run."


def _failure_of(run: Run, error: UpstreamError) -> Failure:
    """A question that was asked several times in vain; who asked only looked, so nothing of it is unknown."""
    silent = error.fault in (Fault.NO_ANSWER, Fault.NOT_SENT)
    did = "did not answer" if silent else "answered with an error"
    sentence = f"{error.upstream.system} {did} in {run.phase.value}: {error.upstream.text}"
    return Failure(code_of(error), sentence, run.phase, upstream=error.upstream)
