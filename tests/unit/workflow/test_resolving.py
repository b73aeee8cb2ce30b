"""What a person may say of an uncertain action, cell by cell; pure."""

from __future__ import annotations

from itertools import product

import pytest

from oma.domain.actions import ActionKind
from oma.domain.resolving import (
    Allowed,
    Contradicted,
    Effect,
    NotOffered,
    Resolution,
    Seen,
    Standing,
    decide,
    offered,
)
from oma.domain.states import ACTION_TRANSITIONS, ActionState

VISIBLE = [one for one in ActionKind if one not in (ActionKind.REVERT_SNAPSHOT, ActionKind.RESET_RECORDS)]
EFFECTS = (Effect.THERE, Effect.NOT_THERE, Effect.HALF, Effect.CHANGING, Effect.UNKNOWN)
PLACES = (Effect.FREE, Effect.TOUCHED, Effect.ATTACHED, Effect.CHANGING, Effect.UNKNOWN)
FAILED = ActionState.EXECUTION_FAILED


def _seen(effect: Effect, standing: Standing = Standing.FAILED, *, snapshot_listed: bool = True) -> Seen:
    return Seen(effect, standing, "Seen.", {}, snapshot_listed)


@pytest.mark.parametrize(("kind", "effect", "standing"), list(product(VISIBLE, EFFECTS, Standing)))
def test_a_visible_effect_decides_and_only_when_nothing_is_under_way(
    kind: ActionKind, effect: Effect, standing: Standing
) -> None:
    applied = decide(FAILED, kind, Resolution.APPLIED, _seen(effect, standing))
    again = decide(FAILED, kind, Resolution.ROLLED_BACK, _seen(effect, standing))
    settled = standing is not Standing.UNDER_WAY
    if settled and effect is Effect.THERE:
        assert isinstance(applied, Allowed)
        assert applied.state is ActionState.MANUAL_MARKED_AS_EXECUTED
        assert isinstance(again, Contradicted)
    elif settled and effect is Effect.NOT_THERE:
        assert isinstance(again, Allowed)
        assert again.state is ActionState.MANUAL_MARKED_AS_ROLLED_BACK
        assert isinstance(applied, Contradicted)
    else:
        assert isinstance(applied, Contradicted)
        assert isinstance(again, Contradicted)
    resync = decide(FAILED, kind, Resolution.RESYNC, _seen(effect, standing))
    if kind is not ActionKind.ATTACH_VOLUME:
        assert isinstance(resync, NotOffered)
    elif settled and effect is Effect.UNKNOWN:
        assert isinstance(resync, Allowed)
        assert resync.state is ActionState.MANUAL_MARKED_AS_ROLLED_BACK
    else:
        assert isinstance(resync, Contradicted)


@pytest.mark.rule("5-unknown-revert")
@pytest.mark.parametrize(("place", "standing", "listed"), list(product(PLACES, Standing, (True, False))))
def test_a_revert_is_repeated_only_where_nothing_can_have_written(
    place: Effect, standing: Standing, *, listed: bool
) -> None:
    found = decide(
        FAILED, ActionKind.REVERT_SNAPSHOT, Resolution.ROLLED_BACK, _seen(place, standing, snapshot_listed=listed)
    )
    may = place is Effect.FREE and listed and standing not in (Standing.UNDER_WAY, Standing.SUCCEEDED)
    assert isinstance(found, Allowed) is may
    if isinstance(found, Allowed):
        assert (found.state, found.waits) == (ActionState.MANUAL_MARKED_AS_ROLLED_BACK, True)


@pytest.mark.rule("5-unknown-revert")
@pytest.mark.parametrize(("place", "standing"), list(product(PLACES, Standing)))
def test_a_word_that_lets_a_disk_go_home_waits_unless_its_own_job_proves_the_revert(
    place: Effect, standing: Standing
) -> None:
    applied = decide(FAILED, ActionKind.REVERT_SNAPSHOT, Resolution.APPLIED, _seen(place, standing))
    resync = decide(FAILED, ActionKind.REVERT_SNAPSHOT, Resolution.RESYNC, _seen(place, standing))
    if place is Effect.UNKNOWN:
        assert isinstance(applied, Contradicted)
        assert isinstance(resync, Allowed)
        assert "stays away" in resync.sentence
        return
    assert isinstance(applied, Allowed)
    assert isinstance(resync, Allowed)
    proven = standing is Standing.SUCCEEDED and place is Effect.FREE
    wanted = ActionState.EXECUTED if proven else ActionState.MANUAL_MARKED_AS_EXECUTED
    assert (applied.state, applied.waits) == (wanted, not proven)
    assert (resync.state, resync.waits) == (ActionState.SKIPPED, True)


def test_no_word_makes_a_transition_that_the_journal_does_not_know() -> None:
    for state, kind, resolution, effect, standing in product(ActionState, ActionKind, Resolution, Effect, Standing):
        found = decide(state, kind, resolution, _seen(effect, standing))
        assert isinstance(found, NotOffered) is (resolution not in offered(kind))
        if isinstance(found, Allowed) and found.state is not None:
            assert found.state in ACTION_TRANSITIONS[state], (state, kind, resolution, effect, standing)
        if isinstance(found, Contradicted):
            assert found.next_step


def test_a_proven_revert_is_never_resynced_nor_repeated() -> None:
    seen = _seen(Effect.FREE, Standing.SUCCEEDED)
    for resolution in (Resolution.RESYNC, Resolution.ROLLED_BACK):
        found = decide(ActionState.EXECUTED, ActionKind.REVERT_SNAPSHOT, resolution, seen)
        assert isinstance(found, Contradicted)
