"""How long a plan is said to take."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from oma.domain.actions import Action, ActionKind, PlannedAction, Target
from oma.domain.estimate import rough_words
from oma.domain.plan import Plan
from oma.domain.states import ActionState, Phase
from oma.workflow.estimate import build_estimate, measure_medians
from tests.unit.gui import samples
from tests.unit.gui.samples import NOW

OTHER_VM = "0a0a0a0a-0000-4000-8000-0000000000bb"


def queued(kind: ActionKind, number: int, vm_id: str = samples.OMA_VM_ID) -> list[PlannedAction]:
    phase = Phase.DETACH if kind is ActionKind.DETACH_VOLUME else Phase.REATTACH
    return [PlannedAction(phase, kind, Target(volume_id=f"v-{one}", vm_id=vm_id), "…") for one in range(number)]


def plan_of(*actions: PlannedAction) -> Plan:
    return replace(samples.plan(), actions=actions)


def done(number: int, kind: ActionKind, began_s: float, ended_s: float, job: str = "job-1") -> Action:
    return Action(
        f"action-{job}-{number}",
        job,
        Phase.REATTACH,
        number,
        kind,
        Target(volume_id=f"v-{number}", vm_id=samples.OMA_VM_ID),
        ActionState.EXECUTED,
        intent_at=NOW + timedelta(seconds=began_s),
        ended_at=NOW + timedelta(seconds=ended_s),
    )


def test_attaches_to_one_vm_add_up_and_those_of_two_vms_go_beside_each_other():
    one = build_estimate(plan_of(*queued(ActionKind.DETACH_VOLUME, 4)), {})
    shared = build_estimate(
        plan_of(*queued(ActionKind.DETACH_VOLUME, 2), *queued(ActionKind.DETACH_VOLUME, 2, OTHER_VM)), {}
    )
    assert one.seconds - shared.seconds == pytest.approx(8.0)


def test_reverts_go_beside_each_other_and_the_largest_disk_counts():
    two = samples.plan()
    one = replace(two, actions=tuple(action for action in two.actions if action.target.volume_name != "vol-2"))
    large = replace(two, volumes=(replace(two.volumes[0], size_bytes=4000 * samples.GIB), *two.volumes[1:]))
    assert build_estimate(two, {}, [Phase.SNAPSHOTS]) == build_estimate(one, {}, [Phase.SNAPSHOTS])
    assert build_estimate(large, {}).high > build_estimate(two, {}).high + 3000


def test_only_the_phases_asked_for_take_time():
    assert build_estimate(samples.plan(), {}, [Phase.ANALYZE]).seconds < build_estimate(samples.plan(), {}).seconds


def test_measured_times_replace_typical_ones_and_the_basis_says_so():
    plan = plan_of(*queued(ActionKind.ATTACH_VOLUME, 4))
    typical, measured = build_estimate(plan, {}), build_estimate(plan, {ActionKind.ATTACH_VOLUME: 30.0})
    assert measured.seconds > typical.seconds + 100
    assert typical.low <= typical.seconds <= typical.high
    assert measured.low <= measured.seconds <= measured.high
    assert "none of ours" in typical.basis
    assert measured.basis == "times of earlier runs here"


def test_the_median_of_a_queue_is_its_run_divided_by_its_actions():
    first = [done(n, ActionKind.ATTACH_VOLUME, 0, 3.0 * (n + 1)) for n in range(4)]
    second = [done(n, ActionKind.ATTACH_VOLUME, 0, 5.0 * (n + 1), "job-2") for n in range(2)]
    reverts = [done(n, ActionKind.REVERT_SNAPSHOT, 0, took) for n, took in enumerate((4.0, 6.0, 80.0), 10)]
    medians = measure_medians([*first, *second, *reverts])
    assert medians == {ActionKind.ATTACH_VOLUME: 4.0, ActionKind.REVERT_SNAPSHOT: 6.0}


def test_one_run_alone_and_actions_without_times_prove_nothing():
    alone = [done(1, ActionKind.ATTACH_VOLUME, 0, 3)]
    assert measure_medians([*alone, replace(alone[0], ended_at=None)]) == {}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "1 s"), (8.4, "8 s"), (33, "35 s"), (88, "90 s"), (91, "2 min"), (3599, "1 h 00 min"), (4300, "1 h 12 min")],
)
def test_rough_words(seconds: float, words: str):
    assert rough_words(seconds) == words


def test_the_estimate_is_no_part_of_the_digest():
    plan = samples.plan()
    assert "estimate" not in plan.as_json()
    assert build_estimate(plan, {}).words.startswith("about ")
