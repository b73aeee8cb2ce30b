"""Phase 1: look at everything, judge again, and save the plan that the later phases read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from oma.domain.changes import PlanSaved
from oma.domain.circuit import CLOUDSTACK, VOLUME_DAEMON
from oma.domain.errors import Code
from oma.domain.evidence import Evidence
from oma.domain.marking import keep_markers
from oma.domain.plan import Plan
from oma.workflow.guards import judge
from oma.workflow.look import until_stopped
from oma.workflow.marking import set_markers
from oma.workflow.observe import World, collect_evidence
from oma.workflow.phases.outcome import PhaseOutcome, completed, count
from oma.workflow.planning import build_plan, first_phase_problem
from oma.workflow.refusing import build_refused, build_refused_plan
from oma.workflow.run import Run
from oma.workflow.spoken import say_words
from oma.workflow.staleness import stale_refusal

LOOKS: Final = 3
"""Where somebody does not answer in time: nobody waits for a queued run so anxiously that it had to fail at once."""
ASKED: Final = "asked"
"""In the evidence of a refusal: who did not answer."""


async def run(run: Run) -> PhaseOutcome:
    """Runs every guard again under the job's own claim, and marks beside it what the plan that has passed works on.

    Raises `Refused`, and then nothing was touched: the markers are taken off when the run ends.
    """
    before = run.plan
    marked, judged = await asyncio.gather(set_markers(run), _judge_again(run), return_exceptions=True)
    if isinstance(judged, BaseException):
        raise judged
    if isinstance(marked, BaseException):
        raise marked
    plan = keep_markers(before, judged)
    sentence = (
        f"Analysed {count(len(plan.volumes), 'volume')} of {plan.vm_name}: "
        f"{count(len(plan.changes), 'action')} planned, "
        f"{count(sum(volume.needs_revert for volume in plan.volumes), 'revert')} among them."
    )
    await run.journal.write(PlanSaved(plan, f"The plan {plan.digest[:12]} is the one that this run goes by."))
    run.plan = plan
    await set_markers(run)
    return completed(sentence)


async def _judge_again(run: Run) -> Plan:
    before = run.plan
    evidence = await _collect(run)
    refusals = judge(evidence)
    for look in range(1, LOOKS):
        if not any(refusal.code is Code.STATE_UNKNOWN and ASKED in refusal.evidence for refusal in refusals):
            break
        await run.stop_if_away(CLOUDSTACK, VOLUME_DAEMON)
        await until_stopped(run, run.tools.clock.sleep(run.tools.figures.retries.cloudstack.pause_s(look)))
        evidence = await _collect(run)
        refusals = judge(evidence)
    if any(refusal.code is Code.STATE_UNKNOWN for refusal in refusals):
        await run.stop_if_away(CLOUDSTACK, VOLUME_DAEMON)
    if refusals:
        raise build_refused(evidence, refusals)
    planned = say_words(build_plan(evidence), run.job.request.words)
    plan = replace(planned, former_status=before.former_status, former_job_id=before.former_job_id)
    _refuse_if_stale(run, before, plan)
    _refuse_if_too_late(run, before, plan)
    return plan


async def _collect(run: Run) -> Evidence:
    tools = run.tools
    async with tools.analyses:
        records = await tools.inventory.get_records(run.plan.context_id)
        world = World(tools.cloud, tools.volumes, tools.clock)
        return await collect_evidence(
            records, world, tools.limits, tools.figures.observe_timeout_s, run.job.request.words
        )


def _refuse_if_stale(run: Run, before: Plan, plan: Plan) -> None:
    expected = run.job.request.expect_plan
    if expected is not None and plan.digest != expected:
        confirmed = before if before.digest == expected else None
        raise build_refused_plan(plan, (stale_refusal(expected, confirmed, plan),))


def _refuse_if_too_late(run: Run, before: Plan, plan: Plan) -> None:
    """The chosen phases no longer begin with the first one that has something to do."""
    problem = first_phase_problem(plan, run.job.request.phases)
    if problem is not None:
        raise build_refused_plan(plan, (stale_refusal(before.digest, before, plan, problem),))
