"""Whether the replica is said to be good, and what is said to come next."""

from __future__ import annotations

import shlex
from dataclasses import replace

import pytest

from oma.domain.actions import Action, ActionKind
from oma.domain.errors import Code, Refusal
from oma.domain.jobs import CleanupRequest
from oma.domain.plan import Plan, TestVmPlan
from oma.domain.states import PHASES, ActionState, Phase, Replica
from oma.domain.verdict import (
    GOOD,
    SOURCE_OFF,
    of_begun,
    of_error,
    of_finished,
    of_parked,
    of_partial,
    of_plan,
    of_refusal,
    say_source_off,
    was_source_powered_off,
)
from oma.domain.words import Words
from tests.unit.gui import samples

pytestmark = pytest.mark.rule("2-source-off")

READY, UNKNOWN = Replica.READY, Replica.UNKNOWN


def reverted(number: int, state: ActionState = ActionState.EXECUTED) -> Action:
    return samples.action(number, ActionKind.REVERT_SNAPSHOT, Phase.SNAPSHOTS, state, volume=number)


def settled_plan() -> Plan:
    """Nothing in it needs a revert."""
    plan = samples.plan()
    return replace(plan, volumes=tuple(replace(one, needs_revert=False) for one in plan.volumes))


ALL = (reverted(1), reverted(2))


def test_a_finished_run_says_that_nothing_has_to_be_done():
    assert of_finished(samples.plan()).as_json() == {"replica": "ready", "next": GOOD}


def test_what_was_left_behind_stands_in_next():
    left = TestVmPlan("vm-1", "pgtest1-test-1", "Error", "destination_vm_id")
    verdict = of_finished(replace(samples.plan(), test_vm=left), ["The snapshot s-1 is left; delete it by hand."])
    assert verdict.replica is READY
    assert "pgtest1-test-1 is Error and was left as it is" in verdict.next
    assert "The snapshot s-1 is left" in verdict.next
    assert "nothing has to be done" not in verdict.next


@pytest.mark.parametrize(
    ("actions", "kinds", "replica"),
    [
        ((), ["detach_volume"], UNKNOWN),
        ((reverted(1),), ["revert_snapshot"], UNKNOWN),
        ((reverted(1), reverted(2, ActionState.EXECUTION_FAILED)), ["revert_snapshot"], UNKNOWN),
        ((reverted(1), reverted(2, ActionState.MANUAL_MARKED_AS_EXECUTED)), ["attach_volume"], UNKNOWN),
        (ALL, ["attach_volume"], READY),
        (ALL, ["delete_snapshot", "destroy_vm"], READY),
        (ALL, ["reset-vm-state"], UNKNOWN),
        (ALL, ["reset_records"], UNKNOWN),
        (ALL, ["internal_error"], UNKNOWN),
    ],
)
def test_a_parked_run_is_ready_only_when_every_revert_is_proven_by_its_own_job(actions, kinds, replica):
    verdict = of_parked(samples.plan(), actions, kinds, "job-1")
    assert verdict.replica is replica
    assert "oma jobs show job-1" in verdict.next


def test_a_parked_run_names_the_disks_whose_content_is_not_proven():
    assert "vol-2" in of_parked(samples.plan(), (reverted(1),), ["revert_snapshot"], "j").next
    assert "vol-1" not in of_parked(samples.plan(), (reverted(1),), ["revert_snapshot"], "j").next


def test_a_run_that_needed_no_revert_leaves_the_replica_as_good_as_it_was():
    assert of_parked(settled_plan(), (), ["attach_volume"], "j").replica is READY
    assert of_begun(settled_plan(), "j").replica is READY
    assert of_begun(samples.plan(), "j").replica is UNKNOWN


def test_a_partial_run_says_how_to_go_on():
    assert of_partial(samples.plan(), ()).replica is UNKNOWN
    verdict = of_partial(samples.plan(), ALL)
    assert verdict.replica is READY
    assert "oma cleanup pgtest1" in verdict.next


def test_a_plan_says_the_command_that_runs_exactly_it():
    plan = replace(samples.plan("a VM's name; rm -rf /"), context_id="ctx 1")
    words = Words(end_test=True, snapshots=(("v-1", "s-1"),), reason="it's over")
    asked = CleanupRequest(plan.vm_name, phases=PHASES[:3], words=words)
    verdict = of_plan(plan, asked)
    parts = shlex.split(verdict.next.partition("Run exactly this plan: ")[2])
    assert parts[:3] == ["oma", "cleanup", plan.vm_name]
    told = dict(zip(parts[3::2], parts[4::2], strict=False))
    assert told["--context-id"] == "ctx 1"
    assert told["--phases"] == "analyze-volume-state,detach-attached-volumes,cleanup-snapshots"
    assert "--end-test" in parts
    assert parts[parts.index("--snapshot") + 1] == "v-1=s-1"
    assert parts[parts.index("--reason") + 1] == "it's over"
    assert parts[-2:] == ["--expect-plan", plan.digest]
    assert verdict.replica is READY


def test_a_plan_that_ends_before_the_reverts_promises_nothing():
    assert of_plan(samples.plan(), CleanupRequest("pgtest1", phases=PHASES[:2])).replica is UNKNOWN
    assert "--phases" not in of_plan(samples.plan(), CleanupRequest("pgtest1")).next


@pytest.mark.parametrize(
    ("codes", "needs_revert", "replica"),
    [
        ([Code.NOTHING_TO_CLEAN], False, READY),
        ([Code.FOREIGN_MARKER], True, UNKNOWN),
        ([Code.DEVICE_IN_USE, Code.STATE_UNKNOWN], False, UNKNOWN),
        ([Code.OPERATION_IN_PROGRESS], False, UNKNOWN),
    ],
)
def test_a_refusal_is_ready_only_where_nothing_needs_a_revert_and_nothing_is_in_doubt(codes, needs_revert, replica):
    refusals = [Refusal(code, "No.", "Do this.") for code in codes]
    verdict = of_refusal(refusals, needs_revert=needs_revert, source_off=False)
    assert (verdict.replica, verdict.next) == (replica, "Do this.")


def test_the_source_vm_comes_first_everywhere_and_once():
    plan = samples.plan(powered_off=True)
    refusal = Refusal(Code.STATE_UNKNOWN, "No.", "Do this.")
    for verdict in (
        of_finished(plan),
        of_partial(plan, ()),
        of_begun(plan, "j"),
        of_parked(plan, (), ["detach_volume"], "j"),
        of_plan(plan, CleanupRequest("pgtest1")),
        of_refusal([refusal], needs_revert=True, source_off=True),
    ):
        assert verdict.next.startswith(SOURCE_OFF)
        assert verdict.next.count(SOURCE_OFF) == 1
        assert say_source_off(verdict.next, source_off=True) == verdict.next


def test_only_an_open_failovers_step_counts_however_it_ended():
    records = samples.vm_records("pgtest1")
    off = replace(records, joblog=(replace(records.joblog[0], step_names=("source-vm-power-off",)),))
    ended = replace(off, failovers=(replace(off.failovers[0], status="failed"),))
    assert was_source_powered_off(off)
    assert not was_source_powered_off(records)
    assert not was_source_powered_off(ended)


def test_every_code_has_a_next_step_and_what_an_error_says_itself_stands():
    for code in Code:
        assert of_error(code.value, {}).next
    assert of_error("x", {"replica": "ready", "next": "Go."}).as_json() == {"replica": "ready", "next": "Go."}
    assert of_error("x", {"replica": "nonsense"}).replica is UNKNOWN
