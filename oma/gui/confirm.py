"""What the confirmation shows: the plan of a dry run in order, or every reason why nothing will be done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from oma.domain.actions import PlannedAction
from oma.domain.errors import TITLES, Code, OmaError, Refusal, Refused
from oma.domain.estimate import Estimate
from oma.domain.jobs import CleanupRequest
from oma.domain.plan import Plan
from oma.domain.states import PHASES, Phase
from oma.domain.verdict import SOURCE_OFF, of_error
from oma.domain.words import Words
from oma.gui import urls, words
from oma.gui.estate import VmRow, build_row
from oma.gui.evidence import evidence_lines
from oma.gui.offers import Offer, force_offer, form_fields, offers_for
from oma.service.deps import Deps
from oma.service.dry_run import dry_run
from oma.service.queries import VmView

EXPLAINED: Final = frozenset({Code.CLEANUP_IN_PROGRESS, Code.NEEDS_RESOLUTION})
"""Errors that belong on this page beside the guards' refusals: somebody or something has the VM."""
WORD_NAMES: Final = {
    "force": "force",
    "end_test": "end the drill",
    "end_holders": "end the driver injection",
    "destination_vm_id": "empty this VM",
    "snapshots": "go back to the named snapshots",
    "resume": "resume",
}


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
    """Either a plan with its digest, or refusals.

    `changes`: what differs from the plan that was confirmed; nothing was started then. `said` are the words of a
    person that this plan or these refusals stand under.
    """

    vm: VmRow
    confirm_url: str
    plan: Plan | None
    estimate: Estimate | None
    digest: str
    phases: tuple[ShownPhase, ...]
    refusals: tuple[ShownRefusal, ...]
    offers: tuple[Offer, ...]
    said: tuple[str, ...]
    reason: str
    fields: tuple[tuple[str, str], ...]
    replica: words.Badge
    source_off: bool
    changes: tuple[str, ...] = ()


async def build_confirmation(deps: Deps, vm: VmView, asked: CleanupRequest, stale: Refused | None) -> Confirmation:
    """Observes and judges without changing anything. `stale`: why the plan that was confirmed is not run."""
    changes = _changes(stale)
    try:
        shown = await dry_run(deps, asked)
    except OmaError as error:
        if not isinstance(error, Refused) and error.code not in EXPLAINED:
            raise
        return _refused(vm, asked.words, error, changes)
    plan = shown.plan
    offers = (force_offer(asked.words),) if vm.records.last_run_failed and not asked.words.force else ()
    return Confirmation(
        plan=plan,
        estimate=shown.estimate,
        digest=plan.digest,
        phases=build_phases(plan),
        refusals=(),
        offers=offers,
        replica=words.REPLICA_BADGES["ready"],
        source_off=plan.source_powered_off,
        changes=changes,
        **_common(vm, asked.words),
    )


def _refused(vm: VmView, said: Words, error: OmaError, changes: tuple[str, ...]) -> Confirmation:
    names = {volume.volume_id: volume.volume_name for volume in vm.records.volumes}
    verdict = of_error(error.code.value, error.fields)
    return Confirmation(
        plan=None,
        estimate=None,
        digest="",
        phases=(),
        refusals=refusals_of(error),
        offers=offers_for(error.refusals, said, names) if isinstance(error, Refused) else (),
        replica=words.REPLICA_BADGES[verdict.replica.value],
        source_off=verdict.next.startswith(SOURCE_OFF),
        changes=changes,
        **_common(vm, said),
    )


def _common(vm: VmView, said: Words) -> dict[str, Any]:
    return {
        "vm": build_row(vm, None),
        "confirm_url": urls.confirm_url(vm.records.context.context_id),
        "said": tuple(WORD_NAMES[name] for name in said.spoken),
        "reason": said.reason or "",
        "fields": form_fields(said),
    }


def build_phases(plan: Plan) -> tuple[ShownPhase, ...]:
    return tuple(
        ShownPhase(phase, words.PHASE_TITLES[phase], tuple(action for action in plan.actions if action.phase is phase))
        for phase in PHASES
    )


def refusals_of(error: OmaError) -> tuple[ShownRefusal, ...]:
    """The reasons that this error carries; one without refusals is told by its own sentence."""
    if isinstance(error, Refused):
        return tuple(_shown_refusal(refusal) for refusal in error.refusals)
    job_id = error.fields.get("job_id")
    return (
        ShownRefusal(
            code=error.code.value,
            title=error.title,
            sentence=error.sentence,
            next_step=_without_source_off(str(error.fields.get("next", ""))),
            evidence=(),
            job_url=urls.job_url(job_id) if isinstance(job_id, str) else None,
        ),
    )


def _shown_refusal(refusal: Refusal) -> ShownRefusal:
    return ShownRefusal(
        code=refusal.code.value,
        title=TITLES[refusal.code],
        sentence=refusal.sentence,
        next_step=refusal.next_step,
        evidence=evidence_lines(refusal.evidence, refusal.sentence),
    )


def _without_source_off(sentence: str) -> str:
    """The page says it once, above everything."""
    return sentence.removeprefix(SOURCE_OFF).strip()


def _changes(stale: Refused | None) -> tuple[str, ...]:
    if stale is None:
        return ()
    told = stale.refusals[0].evidence.get("changed")
    return tuple(str(one) for one in told) if isinstance(told, list) and told else (stale.sentence,)
