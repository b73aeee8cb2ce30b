"""Which reverts a person's `RESYNC` gives up where the issue names no action: their disks are copied whole. Pure.

Source: section 5 of the safety rules. Any doubt about bytes ends in a full copy, not in a guess.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from oma.domain.actions import Action, ActionKind, PlannedAction
from oma.domain.plan import Plan
from oma.domain.states import ActionState, Phase
from oma.domain.verdict import unproven_volumes

SYNC_TYPE: Final = "resync_required"
"""In `cbt_history`: the demand that a disk is copied whole."""
NOT_RUN: Final = frozenset({ActionState.PLANNED, ActionState.ROLLED_BACK, ActionState.MANUAL_MARKED_AS_ROLLED_BACK})
"""They would run again."""
DONE: Final = frozenset({ActionState.EXECUTED, ActionState.MANUAL_MARKED_AS_EXECUTED})
"""Their disks are home, and somebody may have written to them since."""


def find_given_up(
    issue_kind: str | None, plan: Plan, actions: Collection[Action]
) -> tuple[tuple[PlannedAction, Action | None], ...]:
    """Each planned revert with its row, None where it was never begun.

    Those that have not run; where the run stands before its reset, those that have as well.
    """
    states = NOT_RUN | DONE if issue_kind == Phase.RESET.value else NOT_RUN
    known = {(one.kind, one.target): one for one in actions}
    planned = (one for one in plan.actions if one.kind is ActionKind.REVERT_SNAPSHOT)
    found = ((one, known.get((one.kind, one.target))) for one in planned)
    return tuple((one, action) for one, action in found if action is None or action.state in states)


def is_in_doubt(issue_kind: str | None, plan: Plan, actions: Collection[Action]) -> bool:
    """Whether anything is left whose content this issue lets a person give up."""
    return bool(unproven_volumes(plan, actions) or find_given_up(issue_kind, plan, actions))
