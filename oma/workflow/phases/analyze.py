"""Phase 1: look at everything, judge again, and save the plan that the later phases read."""

from __future__ import annotations

from dataclasses import replace

from oma.domain.changes import PlanSaved
from oma.domain.plan import Plan
from oma.workflow.guards import judge
from oma.workflow.observe import World, collect_evidence
from oma.workflow.phases.outcome import PhaseOutcome, completed, count
from oma.workflow.planning import build_plan, first_phase_problem
from oma.workflow.refusing import build_refused, build_refused_plan
from oma.workflow.run import Run
from oma.workflow.spoken import say_words
from oma.workflow.staleness import stale_refusal


async def run(run: Run) -> PhaseOutcome:
    """Runs every guard again under the job's own claim; raises `Refused`, and then nothing was touched."""
    tools, before = run.tools, run.plan
    async with tools.analyses:
        records = await tools.inventory.get_records(before.context_id)
        world = World(tools.cloud, tools.volumes, tools.clock)
        evidence = await collect_evidence(
            records, world, tools.limits, tools.figures.observe_timeout_s, run.job.request.words
        )
    refusals = judge(evidence)
    if refusals:
        raise build_refused(evidence, refusals)
    planned = say_words(build_plan(evidence), run.job.request.words)
    plan = replace(planned, former_status=before.former_status, former_job_id=before.former_job_id)
    _refuse_if_stale(run, before, plan)
    _refuse_if_too_late(run, before, plan)
    sentence = (
        f"Analysed {count(len(plan.volumes), 'volume')} of {plan.vm_name}: "
        f"{count(len(plan.actions), 'action')} planned, "
        f"{count(sum(volume.needs_revert for volume in plan.volumes), 'revert')} among them."
    )
    await run.journal.write(PlanSaved(plan, f"The plan {plan.digest[:12]} is the one that this run goes by."))
    run.plan = plan
    return completed(sentence)


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
