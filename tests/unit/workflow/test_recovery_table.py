"""The decision table of recovery, cell by cell: state, strategy, what was found."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from oma.domain.actions import KIND_RULES, Action, ActionKind, Strategy, Target
from oma.domain.states import ActionState, Phase
from oma.workflow.recovery import (
    TABLE,
    Decision,
    Found,
    cannot_arrive_after,
    decide,
    find_revert_end,
    is_still_known,
)

pytestmark = pytest.mark.rule("8-kinds")
NOW = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
RETRY, PERSON = Strategy.ALWAYS_RETRY, Strategy.MANUAL_INTERVENTION
STARTED, FAILED = ActionState.STARTED, ActionState.EXECUTION_FAILED
ACTION = Action("a1", "j1", Phase.SNAPSHOTS, 1, ActionKind.REVERT_SNAPSHOT, Target("v1"), STARTED, intent_at=NOW)

CELLS = [
    (STARTED, RETRY, Found.KNOWN, Decision.ADOPT),
    (STARTED, PERSON, Found.KNOWN, Decision.ADOPT),
    (STARTED, RETRY, Found.NEVER_ARRIVED, Decision.SEND),
    (STARTED, PERSON, Found.NEVER_ARRIVED, Decision.SEND),
    (STARTED, RETRY, Found.MAY_ARRIVE, Decision.WAIT),
    (STARTED, PERSON, Found.MAY_ARRIVE, Decision.WAIT),
    (STARTED, RETRY, Found.SHOWN, Decision.ADOPT),
    (STARTED, PERSON, Found.SHOWN, Decision.ADOPT),
    (STARTED, RETRY, Found.NOT_SHOWN, Decision.SEND),
    (STARTED, PERSON, Found.NOT_SHOWN, Decision.ADOPT),
    (STARTED, RETRY, Found.BUSY, Decision.PARK),
    (STARTED, PERSON, Found.BUSY, Decision.PARK),
    (STARTED, RETRY, Found.SILENT, Decision.PARK),
    (STARTED, PERSON, Found.SILENT, Decision.PARK),
    (STARTED, RETRY, Found.REFUSED, Decision.PARK),
    (STARTED, PERSON, Found.REFUSED, Decision.PARK),
    (STARTED, RETRY, Found.UNPROVEN_YOUNG, Decision.PARK),
    (STARTED, PERSON, Found.UNPROVEN_YOUNG, Decision.WAIT),
    (STARTED, RETRY, Found.UNPROVEN, Decision.PARK),
    (STARTED, PERSON, Found.UNPROVEN, Decision.SEND),
    (STARTED, RETRY, Found.UNPROVEN_TOUCHED, Decision.PARK),
    (STARTED, PERSON, Found.UNPROVEN_TOUCHED, Decision.PARK),
    (STARTED, RETRY, Found.UNPROVEN_SPENT, Decision.PARK),
    (STARTED, PERSON, Found.UNPROVEN_SPENT, Decision.PARK),
    (FAILED, PERSON, Found.UNPROVEN_YOUNG, Decision.WAIT),
    (FAILED, PERSON, Found.UNPROVEN, Decision.SEND),
]
SAME_WHATEVER_IS_FOUND = {
    ActionState.PLANNED: Decision.SEND,
    ActionState.ROLLED_BACK: Decision.SEND,
    ActionState.MANUAL_MARKED_AS_ROLLED_BACK: Decision.SEND,
    ActionState.EXECUTED: Decision.SKIP,
    ActionState.SKIPPED: Decision.SKIP,
    ActionState.MANUAL_MARKED_AS_EXECUTED: Decision.SKIP,
    ActionState.ROLLBACK_FAILED: Decision.PARK,
}


@pytest.mark.parametrize(("state", "strategy", "found", "decision"), CELLS)
def test_a_cell(state: ActionState, strategy: Strategy, found: Found, decision: Decision) -> None:
    assert TABLE[state, strategy, found] is decision


def test_everything_else_that_failed_is_a_persons() -> None:
    named = {(state, strategy, found) for state, strategy, found, _ in CELLS}
    left = [cell for cell in product([FAILED], Strategy, Found) if cell not in named]
    assert {TABLE[cell] for cell in left} == {Decision.PARK}


@pytest.mark.parametrize(("state", "decision"), SAME_WHATEVER_IS_FOUND.items())
def test_a_state_that_asks_for_no_look(state: ActionState, decision: Decision) -> None:
    assert {TABLE[cell] for cell in product([state], Strategy, Found)} == {decision}


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(product(ActionState, Strategy, Found))
    assert {state for state, *_ in CELLS} | set(SAME_WHATEVER_IS_FOUND) == set(ActionState)


def test_nothing_that_a_look_shows_proves_a_revert() -> None:
    """What is adopted by observation is judged by its own job, which nobody knows: it is not proven."""
    assert TABLE[STARTED, PERSON, Found.SHOWN] is TABLE[STARTED, PERSON, Found.NOT_SHOWN] is Decision.ADOPT


@pytest.mark.parametrize("kind", ActionKind)
def test_a_kind_is_decided_by_its_own_strategy(kind: ActionKind) -> None:
    action = replace(ACTION, kind=kind)
    wanted = Decision.ADOPT if KIND_RULES[kind].strategy is PERSON else Decision.SEND
    assert decide(action, Found.NOT_SHOWN) is wanted


@pytest.mark.rule("6-own-ids")
def test_an_unknown_id_says_never_arrived_only_while_jobs_are_remembered() -> None:
    assert is_still_known(ACTION, NOW + timedelta(seconds=99), memory_s=100, expires_s=60)
    assert not is_still_known(ACTION, NOW + timedelta(seconds=100), memory_s=100, expires_s=60)
    assert not is_still_known(replace(ACTION, intent_at=None), NOW, memory_s=100, expires_s=60)
    sent_again = replace(ACTION, expires_at=NOW + timedelta(seconds=500))
    assert is_still_known(sent_again, NOW + timedelta(seconds=539), memory_s=100, expires_s=60)
    assert not is_still_known(sent_again, NOW + timedelta(seconds=540), memory_s=100, expires_s=60)


@pytest.mark.rule("6-own-ids")
def test_a_call_can_no_longer_arrive_some_time_after_its_expires() -> None:
    expires = NOW + timedelta(seconds=60)
    assert cannot_arrive_after(replace(ACTION, expires_at=expires), 60) == expires + timedelta(seconds=60)
    assert cannot_arrive_after(ACTION, 60) == NOW + timedelta(seconds=60)
    assert cannot_arrive_after(replace(ACTION, intent_at=None), 60) is None


@pytest.mark.rule("5-proof")
@pytest.mark.parametrize(
    ("after_s", "attempt", "touched", "found"),
    [
        (0, 1, False, Found.UNPROVEN_YOUNG),
        (5399, 1, False, Found.UNPROVEN_YOUNG),
        (5400, 1, False, Found.UNPROVEN),
        (5400, 1, True, Found.UNPROVEN_TOUCHED),
        (5400, 2, False, Found.UNPROVEN_SPENT),
        (0, 3, False, Found.UNPROVEN_SPENT),
        (-3600, 1, False, Found.UNPROVEN_YOUNG),
    ],
)
def test_how_a_revert_without_proof_stands(after_s: float, attempt: int, touched: bool, found: Found) -> None:
    ended = replace(ACTION, state=FAILED, ended_at=NOW, attempt=attempt)
    at = NOW + timedelta(seconds=after_s)
    assert find_revert_end(ended, at, window_s=5400, attempts=2, touched=touched)[0] is found


@pytest.mark.rule("5-proof")
def test_a_revert_of_which_nobody_knows_when_it_ended_is_a_persons() -> None:
    found, until = find_revert_end(replace(ACTION, state=FAILED), NOW, window_s=1, attempts=2, touched=False)
    assert (found, until) == (Found.UNPROVEN_TOUCHED, None)
