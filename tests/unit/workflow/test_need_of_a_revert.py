"""What excludes a write to a volume at home, and what never does."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from oma.domain.actions import Action, ActionKind, Target
from oma.domain.evidence import Evidence
from oma.domain.holders import NBD_CLIENT, NBD_SERVER, DeviceHolder
from oma.domain.records import NEVER, DoubtfulTime
from oma.domain.states import ActionState, Phase, VolumePlace
from oma.domain.world import CloudVolume, VolumeFacts
from oma.workflow.revert_need import RevertNeed, revert_need
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import FAILED_OVER_AT, NOW, build, changed_records, unanswered

pytestmark = pytest.mark.rule("5-need")

LONG_BEFORE = FAILED_OVER_AT - timedelta(days=3)
MOVED = ("source-vm-power-off", "vm-creation", "volume-attachment")


def home(attached_at: datetime | None) -> VolumeFacts:
    facts = make.at_home(1)
    assert isinstance(facts.cloud, CloudVolume)
    return replace(facts, cloud=replace(facts.cloud, attached_at=attached_at))


def dead_failover(*steps: str, **changes: object) -> Evidence:
    evidence = build(snapshots=(make.tracked(0),), own_snapshots=(make.snapshot(0),))
    return changed_records(evidence, joblog=(make.joblog(step_names=steps),), **changes)


def need(evidence: Evidence, facts: VolumeFacts) -> RevertNeed:
    return revert_need(evidence, facts, VolumePlace.ON_OMA)


class TestAVolumeThatNeverLeftTheOma:
    def test_cloudstacks_own_word_on_its_attachment_excludes_it(self) -> None:
        found = need(dead_failover(*MOVED), home(LONG_BEFORE))
        assert not found.needed
        assert found.reason == (
            f"it never left the OMA: CloudStack shows it attached since {LONG_BEFORE.isoformat()}, and no failover "
            "injected drivers"
        )

    @pytest.mark.parametrize(
        "attached_at", [None, FAILED_OVER_AT - timedelta(seconds=60), FAILED_OVER_AT + timedelta(hours=1)]
    )
    def test_an_attachment_that_is_not_clearly_older_does_not(self, attached_at: datetime | None) -> None:
        assert need(dead_failover(*MOVED), home(attached_at)).needed

    def test_an_attachment_younger_than_a_snapshot_of_ours_does_not(self) -> None:
        """The database's zone may be mistaken; CloudStack's own times are compared with each other."""
        later = make.failover(created_at=NOW - timedelta(minutes=5))
        assert need(dead_failover(*MOVED, failovers=(later,)), home(NOW - timedelta(minutes=60))).needed
        evidence = replace(dead_failover(*MOVED), own_snapshots=(make.snapshot(0, created=LONG_BEFORE),))
        assert need(evidence, home(LONG_BEFORE)).needed

    def test_nor_where_the_snapshots_are_not_told(self) -> None:
        assert need(replace(dead_failover(*MOVED), own_snapshots=unanswered()), home(LONG_BEFORE)).needed

    def test_nor_where_the_failover_is_in_the_future(self) -> None:
        doubt = DoubtfulTime("failover_jobs", "1", "created_at", NEVER, FAILED_OVER_AT, "in the future")
        assert need(dead_failover(*MOVED, doubtful_times=(doubt,)), home(LONG_BEFORE)).needed

    @pytest.mark.parametrize("steps", [("virtio-driver-injection",), (*MOVED, "virtio-driver-injection")])
    def test_an_injection_that_ran_is_never_excluded(self, steps: tuple[str, ...]) -> None:
        found = need(dead_failover(*steps), home(LONG_BEFORE))
        assert found == RevertNeed(needed=True, reason=f"failover {make.FAILOVER} reached virtio-driver-injection")


class TestHolders:
    def held(self, *holders: DeviceHolder) -> VolumeFacts:
        return make.at_home(1, holders=make.held_by(1, *holders))

    def test_a_process_that_nobody_knows_may_have_written(self) -> None:
        found = need(dead_failover("source-vm-power-off"), self.held(make.unknown_process()))
        assert found.needed
        assert found.reason == "process 666 (dd of=/dev/vdb) holds its device while a failover is open"

    def test_the_export_and_its_clients_are_the_replication_itself(self) -> None:
        server = make.unknown_process(role=NBD_SERVER)
        client = DeviceHolder(NBD_CLIENT, "10.0.0.9:4711")
        assert not need(dead_failover("source-vm-power-off"), self.held(server, client)).needed

    def test_without_an_open_failover_a_holder_is_not_ours_to_judge(self) -> None:
        ended = (make.failover(status="failed", completed_at=NOW - timedelta(hours=1)),)
        evidence = dead_failover("source-vm-power-off", failovers=ended)
        assert not need(evidence, self.held(make.unknown_process())).needed

    def test_a_proven_revert_does_not_outlive_a_holder(self) -> None:
        proven = Action(
            "action-1",
            "job-1",
            Phase.SNAPSHOTS,
            1,
            ActionKind.REVERT_SNAPSHOT,
            Target(volume_id=make.volume_id(1), snapshot_id=make.snapshot_id(1)),
            ActionState.EXECUTED,
            ended_at=NOW - timedelta(minutes=10),
        )
        evidence = dead_failover(*MOVED, proven=(proven,))
        assert not need(evidence, self.held()).needed
        assert need(evidence, self.held(make.unknown_process())).needed
