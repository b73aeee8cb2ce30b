"""What a refusal says besides its reasons: whether the replica is good all the same, and what comes next."""

from __future__ import annotations

from oma.domain.errors import Refusal, Refused
from oma.domain.evidence import Evidence
from oma.domain.plan import Plan
from oma.domain.verdict import of_refusal, was_source_powered_off
from oma.workflow.guards.places import places
from oma.workflow.revert_need import revert_need


def build_refused(evidence: Evidence, refusals: tuple[Refusal, ...]) -> Refused:
    """The guards' refusals with the verdict on the untouched replica."""
    needs = [revert_need(evidence, facts, place) for _, facts, place in places(evidence)]
    return _build(
        evidence.records.context.vm_name,
        refusals,
        needs_revert=any(one.needed for one in needs) or not evidence.records.volumes,
        awaits_copy=any(one.awaits_copy for one in needs),
        source_off=was_source_powered_off(evidence.records),
    )


def build_refused_plan(plan: Plan, refusals: tuple[Refusal, ...]) -> Refused:
    """The same where the plan is all that is known, such as one that went stale."""
    return _build(
        plan.vm_name,
        refusals,
        needs_revert=any(volume.needs_revert for volume in plan.volumes),
        awaits_copy=bool(plan.awaiting),
        source_off=plan.source_powered_off,
    )


def _build(
    vm_name: str, refusals: tuple[Refusal, ...], *, needs_revert: bool, awaits_copy: bool, source_off: bool
) -> Refused:
    verdict = of_refusal(refusals, needs_revert=needs_revert, awaits_copy=awaits_copy, source_off=source_off)
    return Refused(refusals, vm_name=vm_name, source_powered_off=source_off, **verdict.as_json())
