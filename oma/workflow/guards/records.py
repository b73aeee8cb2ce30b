"""Guards about the records themselves, the OMA that they name, and answers that nobody gave."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.records import CLEANUP_REQUIRED
from oma.domain.world import CloudSnapshot, Unanswered
from oma.workflow.guards.places import asked_in_vain, is_home, name_of, places
from oma.workflow.identity import oma_problem
from oma.workflow.leftover import build_test_vm_plan
from oma.workflow.needs import tracked_snapshots
from oma.workflow.whole import record_problems

LISTING_ADVICE: Final = "Look the volume up in CloudStack and correct the record before anything is cleaned."


def answers_are_complete(evidence: Evidence) -> Iterator[Refusal]:
    """No answer is never "no": who did not answer is named."""
    for unanswered in evidence.unanswered:
        yield Refusal(
            Code.STATE_UNKNOWN,
            f"{unanswered.asked} did not say {unanswered.question}: {unanswered.reason}.",
            f"See that {unanswered.asked} answers (oma doctor), then ask again. Nothing was touched.",
            unanswered.as_json(),
        )


def records_are_whole(evidence: Evidence) -> Iterator[Refusal]:
    """Every disk has one volume row and the reverse, and no other VM claims a volume."""
    for problem in record_problems(evidence.records):
        yield Refusal(Code.STATE_UNKNOWN, problem, LISTING_ADVICE, {"context_id": evidence.records.context.context_id})


def oma_is_proven(evidence: Evidence) -> Iterator[Refusal]:
    """Nothing is attached to a VM that is not proven to be this appliance."""
    if any(isinstance(side, Unanswered) for side in (evidence.devices, evidence.volumes_on_oma)):
        return
    if evidence.config is not None and asked_in_vain(evidence, "the VMs"):
        return
    problem = oma_problem(evidence)
    if problem is not None:
        yield Refusal(
            Code.STATE_UNKNOWN,
            problem,
            "Correct the configuration (ossea_configs.oma_vm_id) or the setting oma.identity, then ask again.",
            {"oma_vm_id": evidence.config.oma_vm_id if evidence.config else None},
        )


def _any_of_an_ended_failover(evidence: Evidence) -> bool:
    """A failover's row that is ended tracks one, and it is still there; rows keep the ids of long deleted ones."""
    return any(isinstance(one.cloud, CloudSnapshot) and one.volume_id is not None for one in evidence.snapshots)


def something_to_clean(evidence: Evidence) -> Iterator[Refusal]:
    """There must be a reason to act at all."""
    newest = evidence.records.newest_failover
    reasons = (
        newest is not None and newest.is_open,
        bool(tracked_snapshots(evidence.records)) or _any_of_an_ended_failover(evidence),
        any(not is_home(facts, place) for _, facts, place in places(evidence)),
        evidence.records.context.current_status == CLEANUP_REQUIRED,
        evidence.words.end_test and build_test_vm_plan(evidence) is not None,
    )
    if not any(reasons):
        yield Refusal(
            Code.NOTHING_TO_CLEAN,
            f"{name_of(evidence)} has no open failover, no tracked snapshot, and every volume is home on the OMA.",
            "Nothing has to be done.",
            {"status": evidence.records.context.current_status},
        )
