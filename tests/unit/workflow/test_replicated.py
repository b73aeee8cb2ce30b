"""What proves that a volume was replicated after its snapshot."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from oma.domain.errors import Code
from oma.domain.records import ChangeIdRecord, VmRecords
from oma.workflow.guards import judge
from oma.workflow.replicated import replicated_since
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import SNAPSHOT_AT, build, volume_id

pytestmark = pytest.mark.rule("5-replicated")

BEFORE, AFTER = SNAPSHOT_AT - timedelta(hours=3), SNAPSHOT_AT + timedelta(minutes=1)


def row(change_id: str | None, at: datetime | None, disk_id: str = "disk-2000") -> ChangeIdRecord:
    return ChangeIdRecord(disk_id, change_id, "incremental", at, "repl-1")


def records(*history: ChangeIdRecord, current: str | None = "old", touched: datetime | None = BEFORE) -> VmRecords:
    disks = (make.disk_row(0, disk_change_id=current, updated_at=touched), make.disk_row(1))
    return make.records(change_ids=history, disks=disks)


def since(found: VmRecords, number: int = 0) -> list[str]:
    return replicated_since(found, volume_id(number), SNAPSHOT_AT)


def test_a_change_id_stored_after_the_snapshot_is_one() -> None:
    found = since(records(row("new", AFTER), row("old", BEFORE), current="new", touched=AFTER))
    assert found == [f"The change id new of disk-2000 was stored at {AFTER.isoformat()}, after the snapshot."]


@pytest.mark.parametrize(
    "history",
    [
        (row("old", BEFORE),),
        (row("old", SNAPSHOT_AT - timedelta(seconds=1)),),
        (row(None, AFTER), row("old", BEFORE)),
        (row("new", AFTER, "disk-2001"), row("old", BEFORE)),
        (),
    ],
)
def test_what_is_none(history: tuple[ChangeIdRecord, ...]) -> None:
    """Before the snapshot, without an id, another disk's, or nothing at all."""
    assert since(records(*history)) == []


def test_it_counts_for_its_own_disk_only() -> None:
    found = records(row("new", AFTER, "disk-2001"))
    assert (since(found, 0), len(since(found, 1))) == ([], 1)


def test_one_of_a_disk_that_no_row_knows_counts_for_every_disk() -> None:
    found = records(row("new", AFTER, ""))
    assert (len(since(found, 0)), len(since(found, 1))) == (1, 1)


def test_one_without_a_time_may_be_after_it() -> None:
    assert since(records(row("new", None))) == ["The change id new of disk-2000 was stored at an unknown time."]


class TestTheDisksOwnRow:
    def test_an_id_that_nothing_stored_before_is_one(self) -> None:
        (sentence,) = since(records(row("old", BEFORE), current="new", touched=AFTER))
        assert sentence.startswith("disk-2000 carries the change id new, which no replication had stored")

    @pytest.mark.parametrize(
        ("current", "touched"), [("old", AFTER), ("new", BEFORE), ("new", None), (None, AFTER), ("change-1", AFTER)]
    )
    def test_progress_or_a_known_id_is_none(self, current: str | None, touched: datetime | None) -> None:
        """`change-1` is what the completed replication before the snapshot carries."""
        assert since(records(row("old", BEFORE), current=current, touched=touched)) == []

    def test_without_any_history_nothing_can_be_compared(self) -> None:
        assert since(records(current="new", touched=AFTER)) == []


def test_a_stored_change_id_alone_forbids_the_revert() -> None:
    history = (row("new", AFTER, "disk-2001"),)
    evidence = build(records=make.records(change_ids=history))
    (refusal,) = judge(evidence)
    assert refusal.code is Code.REPLICATED_SINCE_SNAPSHOT
    assert refusal.sentence.startswith("disk-1: The change id new of disk-2001 was stored at")
    assert judge(replace(evidence, records=make.records())) == ()
