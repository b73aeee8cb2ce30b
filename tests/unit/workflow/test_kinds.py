"""The table of kinds, as the safety rules give it (section 8)."""

from __future__ import annotations

import pytest

from oma.domain.actions import KIND_RULES, ActionKind, Strategy
from oma.workflow.drivers import DRIVERS

pytestmark = pytest.mark.rule("8-kinds")


def test_every_kind_has_its_row() -> None:
    assert set(KIND_RULES) == set(ActionKind)


def test_every_kind_that_others_carry_out_has_a_driver() -> None:
    assert set(DRIVERS) == set(ActionKind) - {ActionKind.RESET_RECORDS}


def test_only_a_revert_needs_a_person_and_cannot_be_come_back_from() -> None:
    of_people = {kind for kind, rule in KIND_RULES.items() if rule.strategy is Strategy.MANUAL_INTERVENTION}
    final = {kind for kind, rule in KIND_RULES.items() if rule.passes_point_of_no_return}
    assert of_people == final == {ActionKind.REVERT_SNAPSHOT}


def test_only_markers_and_detaches_are_undone() -> None:
    undone = {kind: rule.undone_by for kind, rule in KIND_RULES.items() if rule.undone_by is not None}
    assert undone == {
        ActionKind.SET_MARKER: ActionKind.CLEAR_MARKER,
        ActionKind.DETACH_VOLUME: ActionKind.ATTACH_VOLUME,
    }


def test_force_passes_these_kinds_and_no_other() -> None:
    """The fourth pass, an export, is a part of an attach, never the attach itself."""
    forced = {kind for kind, rule in KIND_RULES.items() if rule.forced}
    assert forced == {ActionKind.STOP_VM, ActionKind.DELETE_SNAPSHOT, ActionKind.DESTROY_VM}
