"""The checker can fail: a good run is judged as good, and each damage to its history is named by its own invariant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from oma.demo.invariants import INVARIANTS, History, judge
from oma.domain.states import ActionState, JobState
from tests.unit.demo.damage import (
    ELSEWHERE,
    first,
    with_call,
    with_end,
    with_job,
    with_lower_fence,
    with_marker,
    with_one_more,
    with_second_run,
    with_sighting,
    with_unreadable,
    with_volume,
)

Damage = Callable[[History], History]


DAMAGES: dict[str, Damage] = {
    "no-revert-while-held": lambda one: with_sighting(one, "revertSnapshot", shown_on=(one.oma_vm_id,)),
    "no-delete-before-proof": lambda one: with_end(one, "revertSnapshot", succeeded=False),
    "no-second-revert": lambda one: with_one_more(
        one, "revertSnapshot", seen=replace(first(one, "revertSnapshot").seen, touches=99)
    ),
    "no-attach-unproven": lambda one: with_end(one, "revertSnapshot", succeeded=False),
    "no-foreign-vm": lambda one: with_sighting(one, "attachVolume", vm_id=ELSEWHERE),
    "no-destroy-with-volume": lambda one: with_sighting(
        one, "destroyVirtualMachine", held_volume_ids=tuple(one.vms[0].volume_ids)
    ),
    "no-foreign-snapshot": lambda one: with_sighting(one, "deleteSnapshot", snapshot_id=ELSEWHERE),
    "one-run": with_second_run,
    "no-lower-fence": with_lower_fence,
    "no-given-up-id": lambda one: with_one_more(one, "detachVolume", after_seq=10_000),
    "journaled": lambda one: with_call(one, "detachVolume", request_id=ELSEWHERE),
    "no-blind-repeat": lambda one: with_one_more(
        one, "revertSnapshot", at=one.ends[first(one, "revertSnapshot").job_id or ""].at - 0.001
    ),
    "told-is-committed": lambda one: replace(one, told=[*one.told, (10_000, "All is well.")]),
    "forced-by-word": lambda one: with_call(one, "stopVirtualMachine", params={"forced": "true"}),
    "at-rest": lambda one: with_job(one, state=JobState.RUNNING),
    "completed-is-whole": lambda one: with_volume(one, content="something else"),
    "parked-is-named": lambda one: with_job(one, state=JobState.PARKED),
    "back-is-back": lambda one: with_job(one, state=JobState.FAILED),
    "no-marker-left": with_marker,
    "no-older-copy": lambda one: replace(with_call(one, "detachVolume", sent_at=5.0), older=[(4.0, 6.0)]),
    "nonsense-is-parked": lambda one: with_unreadable(one, state="running"),
}


def test_a_good_run_is_good(good: History) -> None:
    assert [str(one) for one in judge(good)] == []
    assert all(action.state is not ActionState.STARTED for action in good.journal.actions.values())


@pytest.mark.parametrize("name", [invariant.name for invariant in INVARIANTS])
def test_each_invariant_names_its_own_damage(good: History, name: str) -> None:
    assert name in {one.invariant for one in judge(DAMAGES[name](good))}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vm_id": None}, "is on None"),
        ({"shown_on_oma": False}, "shows no device"),
        ({"mode": "failover"}, "is mapped as failover"),
        ({"exported": False}, "has no NBD export"),
    ],
)
def test_a_completed_run_is_looked_at_from_all_sides(good: History, fields: dict[str, Any], words: str) -> None:
    assert any(words in one.sentence for one in judge(with_volume(good, **fields)))


def test_what_somebody_else_disturbed_is_not_held_against_the_run(good: History) -> None:
    damaged = with_volume(good, content="something else", vm_id=None)
    assert judge(replace(damaged, disturbed=good.vms[0].volume_ids)) == []


def test_a_call_of_somebody_else_is_not_judged(good: History) -> None:
    damaged = with_call(good, "detachVolume", request_id=ELSEWHERE)
    assert judge(replace(damaged, others=frozenset({ELSEWHERE}))) == []
