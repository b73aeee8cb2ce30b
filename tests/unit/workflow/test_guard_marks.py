"""6-safety 6: another installation's marker stops everything until a person lifts it."""

from __future__ import annotations

import pytest

from oma.domain.errors import Code
from oma.domain.evidence import Evidence, GuardLimits
from oma.domain.world import Mark, Unanswered
from oma.workflow.guards import GUARDS
from oma.workflow.guards.failovers import operation_in_progress
from oma.workflow.guards.marks import foreign_marker
from oma.workflow.guards.records import answers_are_complete
from tests.unit.workflow.evidence import build, unanswered, volume_id

pytestmark = pytest.mark.rule("6-foreign-marker")

SILENT = Unanswered("the markers", "CloudStack", "432: the command listTags does not exist")


def marked(value: str, **changes: object) -> Evidence:
    return build(marks=(Mark(volume_id(1), value),), limits=GuardLimits(installation="berlin"), **changes)


def test_a_volume_without_a_marker_passes() -> None:
    assert not list(foreign_marker(build()))


@pytest.mark.parametrize("value", ["berlin/job-7", "berlin"])
def test_our_own_marker_passes(value: str) -> None:
    assert not list(foreign_marker(marked(value)))


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
