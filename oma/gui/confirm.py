"""What the confirmation shows: the plan of a dry run in order, or every reason why nothing will be done."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from oma.domain.actions import PlannedAction
from oma.domain.errors import TITLES, Code, OmaError, Refused
from oma.domain.jobs import CleanupRequest
from oma.domain.plan import Plan
from oma.domain.states import PHASES, Phase
from oma.gui import urls, words
from oma.gui.estate import VmRow, build_row
from oma.service import cleanup
from oma.service.deps import Deps
from oma.service.queries import VmView

EXPLAINED: Final = frozenset({Code.CLEANUP_IN_PROGRESS, Code.NEEDS_RESOLUTION})
"""Errors that belong on this page beside the guards' refusals: somebody or something has the VM."""


@dataclass(frozen=True, slots=True)
class ShownRefusal:
    """One reason, its evidence as pairs of words, and the next step."""

    code: str
    title: str
    sentence: str
    next_step: str
    evidence: tuple[tuple[str, str], ...]
    job_url: str | None = None


@dataclass(frozen=True, slots=True)
class ShownPhase:
    phase: Phase
    title: str
    actions: tuple[PlannedAction, ...]


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Either a plan with its digest, or refusals."""

    vm: VmRow
    confirm_url: str
    plan: Plan | None
    digest: str
    phases: tuple[ShownPhase, ...]
    refusals: tuple[ShownRefusal, ...]
    changed: bool
    """The plan is another than the one that somebody confirmed; nothing was started."""


async def build_confirmation(deps: Deps, vm: VmView, expected: str | None) -> Confirmation:
    """Observes and judges without changing anything."""
    context = vm.records.context
    asked = CleanupRequest(vm_name=context.vm_name, context_id=context.context_id, dry_run=True)
    plan: Plan | None = None
    refusals: tuple[ShownRefusal, ...] = ()
    try:
        plan = await cleanup.plan_cleanup(deps, asked)
    except OmaError as error:
        refusals = refusals_of(error)
        if not refusals:
            raise
    digest = plan.digest if plan else ""
    return Confirmation(
        vm=build_row(vm, None),
        confirm_url=urls.confirm_url(context.context_id),
        plan=plan,
        digest=digest,
        phases=build_phases(plan) if plan else (),
        refusals=refusals,
        changed=expected is not None and expected != digest,
    )


def build_phases(plan: Plan) -> tuple[ShownPhase, ...]:
    return tuple(
        ShownPhase(phase, words.PHASE_TITLES[phase], tuple(action for action in plan.actions if action.phase is phase))
        for phase in PHASES
    )


def refusals_of(error: OmaError) -> tuple[ShownRefusal, ...]:
    """The reasons that this error carries; none where it belongs on a page of its own."""
    if isinstance(error, Refused):
        return tuple(
            ShownRefusal(
                code=refusal.code.value,
                title=TITLES[refusal.code],
                sentence=refusal.sentence,
                next_step=refusal.next_step,
                evidence=evidence_words(refusal.evidence),
            )
            for refusal in error.refusals
        )
    if error.code not in EXPLAINED:
        return ()
    job_id = error.fields.get("job_id")
    return (
        ShownRefusal(
            code=error.code.value,
            title=error.title,
            sentence=error.sentence,
            next_step=str(error.fields.get("next", "")),
            evidence=(),
            job_url=urls.job_url(job_id) if isinstance(job_id, str) else None,
        ),
    )


def evidence_words(evidence: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Evidence is JSON; nested values are shown as such, plain ones as they stand."""
    return tuple((key.replace("_", " "), _as_words(value)) for key, value in evidence.items())


def _as_words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value) or "none"
    return json.dumps(value, ensure_ascii=False, default=str)
