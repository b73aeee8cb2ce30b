"""One claimed job: next phase, observe, act, verify, commit, until it has ended, parked or reached a safe point."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from oma.domain.changes import JobEnded, JobReleased, StepEnded, StepStarted
from oma.domain.errors import Code, ConcurrentChange, OmaError, Refusal, Refused
from oma.domain.jobs import OPERATION, ClaimedJob
from oma.domain.states import PHASES, JobState, Phase, StepStatus
from oma.domain.verdict import of_partial
from oma.ports import Fault, UpstreamError
from oma.workflow.finishing import unfollowed
from oma.workflow.forcing import leak_sentences, leaks_of
from oma.workflow.parking import park, refuse
from oma.workflow.phases import analyze, detach, reattach, reset, snapshots
from oma.workflow.phases.outcome import PhaseOutcome
from oma.workflow.replicated import COPY_WHOLE
from oma.workflow.run import Failure, Parked, Run, Stopped, Tools, code_of

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
    try:
        return await _drive(run)
    except Stopped:
        sentence = f"Stopped at a safe point in {run.phase.value}; the run goes on after the restart."
        await run.journal.write(JobReleased(sentence))
        return sentence
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
    chosen = run.job.request.phases
    for phase in PHASES:
        run.phase = phase
        if run.step_is_over(phase):
            continue
        if phase is not Phase.ANALYZE and phase not in chosen:
            await run.journal.write(StepEnded(phase, StepStatus.SKIPPED, "Not asked for."))
            continue
        if run.tools.stop.is_set():
            raise Stopped
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
    await run.journal.write(JobEnded(JobState.COMPLETED, sentence, result=result, summary=summary))
    return sentence


async def _end_badly(run: Run, failures: tuple[Failure, ...]) -> str:
    """Parks a run that has acted; one that has not touched anything is refused instead, `state_unknown` by default."""
    if run.has_acted:
        return await park(run, (*failures, *unfollowed(run, failures)))
    guarded = [one for one in failures if one.guard is not None] or [failures[0]]
    refusals = tuple(
        Refusal(one.guard or Code.STATE_UNKNOWN, one.sentence, _next_step(one.guard), dict(one.evidence))
        for one in guarded
    )
    return await refuse(run, Refused(refusals, vm_name=run.plan.vm_name))


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
