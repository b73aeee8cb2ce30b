"""The rules that decide whether anything may be done: one function each, from evidence to named reasons.

The table at the end holds them in the order in which their codes take precedence. A guard whose evidence is missing
refuses in its own place as `state_unknown`; nothing that cannot be judged is let through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from oma.domain.errors import Refusal
from oma.domain.evidence import Evidence
from oma.workflow.guards.devices import device_agrees, device_in_use
from oma.workflow.guards.failovers import live_failover, operation_in_progress, test_failover_active
from oma.workflow.guards.marks import foreign_marker
from oma.workflow.guards.records import answers_are_complete, oma_is_proven, records_are_whole, something_to_clean
from oma.workflow.guards.snapshots import not_replicated_since, snapshots_are_there, snapshots_fit
from oma.workflow.guards.volumes import (
    no_destroyed_vm_holds_one,
    test_vm_gives_back,
    volumes_are_ours,
    volumes_are_settled,
)

Guard = Callable[[Evidence], Iterator[Refusal]]


def judge(evidence: Evidence) -> tuple[Refusal, ...]:
    """Every reason that speaks against a clean-up, in order of precedence; empty means that it may begin."""
    return tuple(refusal for guard in GUARDS for refusal in guard(evidence))


GUARDS: Final[tuple[Guard, ...]] = (
    live_failover,
    test_failover_active,
    operation_in_progress,
    foreign_marker,
    answers_are_complete,
    records_are_whole,
    oma_is_proven,
    volumes_are_ours,
    no_destroyed_vm_holds_one,
    test_vm_gives_back,
    device_agrees,
    device_in_use,
    volumes_are_settled,
    snapshots_are_there,
    snapshots_fit,
    not_replicated_since,
    something_to_clean,
)
