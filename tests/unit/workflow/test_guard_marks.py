"""6-safety 6: another installation's marker stops everything until a person lifts it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oma.domain.actions import ActionKind, Target
from oma.domain.errors import Code
from oma.domain.evidence import Evidence, GuardLimits
from oma.domain.states import Phase
from oma.domain.world import Mark, Unanswered
from oma.workflow.guards import GUARDS
from oma.workflow.guards.failovers import operation_in_progress
from oma.workflow.guards.marks import foreign_marker
from oma.workflow.guards.records import answers_are_complete
from oma.workflow.planning import build_plan
from tests.unit.workflow.evidence import build, changed_records, unanswered, volume_id

pytestmark = pytest.mark.rule("6-foreign-marker")

SILENT = Unanswered("the markers", "CloudStack", "432: the command listTags does not exist")


def marked(value: str, **changes: object) -> Evidence:
    return build(marks=(Mark(volume_id(1), value),), limits=GuardLimits(installation="berlin"), **changes)


def test_a_volume_without_a_marker_passes() -> None:
    assert not list(foreign_marker(build()))


@pytest.mark.parametrize("known", [{"ended_job_ids": frozenset({"job-7"})}, {"active_job_id": "job-7"}])
def test_the_marker_of_a_run_of_ours_passes_ended_or_at_work(known: dict[str, object]) -> None:
    assert not list(foreign_marker(changed_records(marked("berlin/job-7"), **known)))


@pytest.mark.parametrize("value", ["berlin/job-8", "berlin", "berlin/"])
def test_one_of_ours_that_this_database_does_not_know_is_a_strangers(value: str) -> None:
    evidence = changed_records(marked(value), ended_job_ids=frozenset({"job-7"}))
    (refusal,) = foreign_marker(evidence)
    assert refusal.code is Code.FOREIGN_MARKER
    assert "of a run of ours that this database does not know" in refusal.sentence


def test_the_marker_of_an_ended_run_is_taken_off_before_ours_is_put_on() -> None:
    evidence = changed_records(marked("berlin/job-7"), ended_job_ids=frozenset({"job-7"}))
    first, *others = [one for one in build_plan(evidence).actions if one.phase is Phase.ANALYZE]
    assert (first.kind, first.target) == (
        ActionKind.CLEAR_MARKER,
        Target(volume_ids=(volume_id(1),), mark="berlin/job-7"),
    )
    assert {one.kind for one in others} == {ActionKind.SET_MARKER}


def test_where_markers_are_best_effort_a_role_that_may_not_list_them_passes() -> None:
    denied = replace(SILENT, code="432")
    assert list(foreign_marker(build(marks=denied)))
    assert not list(foreign_marker(build(marks=denied, limits=GuardLimits(markers_required=False))))
    assert list(foreign_marker(build(marks=SILENT, limits=GuardLimits(markers_required=False)))), "silence is no denial"


@pytest.mark.parametrize("value", ["hamburg/job-7", "Berlin/job-7", "berlin2/job-7", "", "/job-7"])
def test_any_other_marker_is_refused_with_volume_and_value(value: str) -> None:
    (refusal,) = foreign_marker(marked(value))
    assert refusal.code is Code.FOREIGN_MARKER
    assert refusal.sentence.startswith(f"disk-1 carries the marker {value or '(empty)'} of ")
    assert refusal.evidence == {
        "volume_id": volume_id(1),
        "volume_name": "disk-1",
        "value": value,
        "installation": "berlin",
    }
    assert f"cs deleteTags resourcetype=Volume resourceids={volume_id(1)}" in refusal.next_step


def test_a_missing_answer_refuses_in_its_place() -> None:
    (refusal,) = foreign_marker(build(marks=SILENT))
    assert refusal.code is Code.STATE_UNKNOWN
    assert "432: the command listTags does not exist" in refusal.sentence


def test_where_cloudstack_is_away_altogether_it_is_said_once() -> None:
    assert not list(foreign_marker(build(marks=SILENT, unanswered=(unanswered(),))))


def test_it_stands_between_what_is_alive_and_what_nobody_answered() -> None:
    place = GUARDS.index(foreign_marker)
    assert GUARDS[place - 1] is operation_in_progress
    assert GUARDS[place + 1] is answers_are_complete
