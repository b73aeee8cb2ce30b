"""Where the records track snapshots, and whose a snapshot is that only a failover's row names."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from oma.domain.evidence import SnapshotFacts
from oma.domain.records import DoubtfulTime, VmRecords
from oma.domain.world import CloudSnapshot
from oma.workflow.since import settled_at, written_since
from oma.workflow.tracking import build_snapshot_facts, tracked_by_failovers, tracked_ids, untracked
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import FAILED_OVER_AT, REPLICATED_AT, snapshot_id, unanswered, volume_id

pytestmark = pytest.mark.rule("5-places")

FOREIGN = "ffffffff-aaaa-4000-8000-000000000000"


def only_in_failover(named: str, **changes: object) -> VmRecords:
    """Nothing but the failover's row tracks a snapshot."""
    return make.records(
        volumes=tuple(make.volume_row(number, snapshot_id=None) for number in range(2)),
        mappings=tuple(make.mapping_row(number, ossea_snapshot_id=None) for number in range(2)),
        failovers=(make.failover(ossea_snapshot_id=named, **changes),),
    )


def facts_of(records: VmRecords, *listed: CloudSnapshot) -> list[tuple[str | None, str, tuple[str, ...]]]:
    found = build_snapshot_facts(records, listed)
    return [(facts.volume_id, facts.snapshot_id, facts.tracked_in) for facts in found]


class TestWhatAFailoverNames:
    def test_it_belongs_to_the_volume_that_cloudstack_shows_it_on(self) -> None:
        records = only_in_failover(snapshot_id(1))
        assert facts_of(records, make.snapshot(1)) == [(volume_id(1), snapshot_id(1), ("failover_jobs",))]

    def test_one_that_the_volume_names_too_is_counted_once(self) -> None:
        records = make.records(failovers=(make.failover(ossea_snapshot_id=snapshot_id(1)),))
        assert facts_of(records, make.snapshot(0), make.snapshot(1)) == [
            (volume_id(0), snapshot_id(0), ("ossea_volumes", "device_mappings")),
            (volume_id(1), snapshot_id(1), ("ossea_volumes", "device_mappings", "failover_jobs")),
        ]

    def test_a_dead_one_is_nobodys(self) -> None:
        assert facts_of(only_in_failover("dead")) == [(None, "dead", ("failover_jobs",))]

    def test_one_of_a_volume_of_somebody_else_is_nobodys(self) -> None:
        foreign = make.snapshot(1, volume_id=FOREIGN)
        assert facts_of(only_in_failover(snapshot_id(1)), foreign) == [(None, snapshot_id(1), ("failover_jobs",))]

    def test_where_nobody_answered_nothing_is_said_about_it(self) -> None:
        silent = unanswered("the tracked snapshots")
        assert build_snapshot_facts(only_in_failover("one"), silent) == (
            SnapshotFacts(None, "one", ("failover_jobs",), silent),
        )

    def test_a_copy_in_the_wrong_volumes_row_stands_beside_the_right_one(self) -> None:
        wrong = make.records(
            volumes=(make.volume_row(0, snapshot_id=snapshot_id(1)), make.volume_row(1, snapshot_id=None)),
            mappings=(),
            failovers=(make.failover(ossea_snapshot_id=snapshot_id(1)),),
        )
        assert facts_of(wrong, make.snapshot(1)) == [
            (volume_id(0), snapshot_id(1), ("ossea_volumes",)),
            (volume_id(1), snapshot_id(1), ("failover_jobs",)),
        ]


class TestWhichFailoversCount:
    def test_ended_ones_since_the_last_completed_replication_do(self) -> None:
        assert tracked_by_failovers(only_in_failover("ended", status="failed")) == ("ended",)

    def test_ended_ones_before_it_do_not(self) -> None:
        before = REPLICATED_AT - timedelta(hours=1)
        assert tracked_by_failovers(only_in_failover("old", status="failed", created_at=before)) == ()

    def test_an_open_one_does_whenever_it_began(self) -> None:
        before = REPLICATED_AT - timedelta(hours=1)
        assert tracked_by_failovers(only_in_failover("old", created_at=before)) == ("old",)

    def test_one_without_a_date_does(self) -> None:
        assert tracked_by_failovers(only_in_failover("undated", status="failed", created_at=None)) == ("undated",)

    def test_every_place_is_asked_for_once(self) -> None:
        records = make.records(failovers=(make.failover(ossea_snapshot_id="third"),))
        assert tracked_ids(records) == (snapshot_id(0), snapshot_id(1), "third")

    def test_a_replication_of_a_doubtful_time_settles_as_little_as_it_can(self) -> None:
        records = replace(only_in_failover("ended", status="failed"), doubtful_times=())
        later = make.replication(completed_at=FAILED_OVER_AT + timedelta(minutes=30))
        records = replace(records, replications=(later,))
        assert tracked_by_failovers(records) == ()
        assert later.completed_at is not None
        early = later.completed_at - timedelta(hours=1)
        doubt = DoubtfulTime("replication_jobs", later.id, "completed_at", early, later.completed_at, "repeated hour")
        records = replace(records, doubtful_times=(doubt,))
        assert settled_at(records) == doubt.earliest
        assert tracked_by_failovers(records) == ("ended",)


def test_nothing_that_dates_a_write_leaves_the_last_settlement() -> None:
    assert written_since(make.records()) == FAILED_OVER_AT
    assert written_since(make.records(failovers=())) == REPLICATED_AT
    assert written_since(make.records(failovers=(), replications=())) is None


def test_only_names_of_test_failovers_are_ours() -> None:
    ours = make.snapshot(1, id="ours", name="multi-test-failover-pgtest1-1")
    named_alike = make.snapshot(1, id="theirs", name="before-test-failover-1")
    evidence = make.build(own_snapshots=(make.snapshot(0), make.snapshot(1), ours, named_alike))
    assert [one.id for one in untracked(evidence)] == ["ours"]
    assert list(untracked(evidence, volume_id(0))) == []
    assert list(untracked(replace(evidence, own_snapshots=unanswered()))) == []
