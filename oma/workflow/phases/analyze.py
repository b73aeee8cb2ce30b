"""Phase 1: look at everything, judge again, and save the plan that the later phases read."""

from __future__ import annotations

from dataclasses import replace

from oma.domain.changes import PlanSaved
from oma.domain.errors import Code, Refusal, Refused
from oma.domain.plan import Plan
from oma.workflow.guards import judge
from oma.workflow.observe import World, collect_evidence
from oma.workflow.phases.outcome import PhaseOutcome, completed, count
from oma.workflow.planning import build_plan
from oma.workflow.run import Run


async def run(run: Run) -> PhaseOutcome:
    """Runs every guard again under the job's own claim; raises `Refused`, and then nothing was touched."""
    tools, before = run.tools, run.plan
    records = await tools.inventory.get_records(before.context_id)
    world = World(tools.cloud, tools.volumes, tools.clock)
    evidence = await collect_evidence(records, world, tools.limits, tools.figures.observe_timeout_s)
    refusals = judge(evidence)
    if refusals:
        raise Refused(refusals, vm_name=before.vm_name)
    plan = replace(build_plan(evidence), former_status=before.former_status, former_job_id=before.former_job_id)
    _refuse_if_stale(run, plan)
    sentence = (
        f"Analysed {count(len(plan.volumes), 'volume')} of {plan.vm_name}: "
        f"{count(len(plan.actions), 'action')} planned, "
        f"{count(sum(volume.needs_revert for volume in plan.volumes), 'revert')} among them."
    )
    await run.journal.write(PlanSaved(plan, sentence))
    run.plan = plan
    return completed(sentence)


def _refuse_if_stale(run: Run, plan: Plan) -> None:
    if run.job.request.expect_plan is not None and plan.digest != run.job.request.expect_plan:
        refusal = Refusal(
            Code.PLAN_STALE,
            f"The world around {plan.vm_name} changed after the plan was confirmed; nothing was touched.",
            "Look at the new plan with a dry run and confirm that one.",
            {"expected": run.job.request.expect_plan, "current": plan.digest},
        )
        raise Refused((refusal,), vm_name=plan.vm_name)
