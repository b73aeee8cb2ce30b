"""Answers that are "not known", times within one second, and next steps that lead on."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from oma.domain.actions import Action, ActionKind, Target
from oma.domain.errors import Code
from oma.domain.evidence import Evidence, GuardLimits
from oma.domain.holders import DeviceHolders
from oma.domain.jobs import OPERATION
from oma.domain.records import ReplicationRecord, VmContext
from oma.domain.states import ActionState, Phase, VolumePlace
from oma.domain.words import Words
from oma.domain.world import CloudSnapshot, Mapping, Unanswered
from oma.ports import Fault, UpstreamError
from oma.workflow.guards import judge
from oma.workflow.guards.devices import device_agrees, device_in_use
from oma.workflow.guards.records import something_to_clean
from oma.workflow.guards.snapshots import snapshots_fit
from oma.workflow.observe import World, collect_evidence
from oma.workflow.planning import build_plan
from oma.workflow.replicated import replications_since
from oma.workflow.revert_need import revert_need
from oma.workflow.since import failovers_since
from tests.fakes.cloud import FakeCloud
from tests.fakes.stage import Stage
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import (
    FAILED_OVER_AT,
    NOW,
    SNAPSHOT_AT,
    TEST_VM,
    build,
    changed_records,
    snapshot_id,
    volume_id,
)

SECOND = timedelta(seconds=1)
HALF = timedelta(milliseconds=500)
BEFORE, AFTER = SNAPSHOT_AT - timedelta(hours=2), SNAPSHOT_AT + timedelta(minutes=5)
SOMEBODYS = "0ba00000-5555-4000-8000-000000000000"


def replicated(**changes: Any) -> list[str]:
    row = ReplicationRecord("repl-9", "completed", None, BEFORE, BEFORE, BEFORE)
    records = make.records(replications=(replace(row, **changes),))
    return replications_since(records, SNAPSHOT_AT)


@pytest.mark.rule("5-replicated")
class TestAReplicationsTimes:
    @pytest.mark.parametrize("field", ["started_at", "completed_at"])
    def test_the_very_second_of_the_snapshot_may_be_after_it(self, field: str) -> None:
        (sentence,) = replicated(**{field: SNAPSHOT_AT})
        assert sentence.endswith(f"at {SNAPSHOT_AT.isoformat()}, in the very second of the snapshot.")
        assert replicated(**{field: SNAPSHOT_AT - SECOND}) == []

    @pytest.mark.parametrize("status", ["replicating", "completed", "failed", ""])
    @pytest.mark.parametrize("touch", ["updated_at", "vma_last_poll_at"])
    def test_an_end_that_nobody_wrote_down_is_not_later_than_the_last_touch(self, status: str, touch: str) -> None:
        (sentence,) = replicated(status=status, completed_at=None, **{touch: AFTER})
        assert sentence == (
            f"When replication repl-9 ended is not recorded; its row was touched at {AFTER.isoformat()}, after the "
            "snapshot."
        )
        assert replicated(status=status, completed_at=None, **{touch: BEFORE}) == []

    def test_a_row_without_any_time_excludes_nothing(self) -> None:
        nothing = dict.fromkeys(("started_at", "completed_at", "updated_at", "vma_last_poll_at"))
        assert replicated(**nothing) == ["When replication repl-9 ended is not recorded; nothing dates its row."]

    def test_a_recorded_end_before_it_outweighs_a_later_touch(self) -> None:
        assert replicated(updated_at=AFTER) == []


@pytest.mark.rule("5-replicated")
@pytest.mark.parametrize("behind", [timedelta(minutes=-30), timedelta(hours=-5)])
def test_where_the_records_date_the_snapshot_earlier_than_cloudstack_the_earlier_time_counts(behind: timedelta) -> None:
    """CloudStack's clock is ahead, or the rows are read in a wrong zone: a replication between the two came after it."""
    began = SNAPSHOT_AT + behind + timedelta(minutes=10)
    volumes = (make.volume_row(0), make.volume_row(1, snapshot_created_at=SNAPSHOT_AT + behind))
    older = make.failover(created_at=SNAPSHOT_AT + behind - timedelta(minutes=5))
    row = make.replication(started_at=began, completed_at=began + SECOND, updated_at=began + SECOND)
    evidence = changed_records(build(), volumes=volumes, failovers=(older,), replications=(row,))
    (refusal,) = judge(evidence)
    assert refusal.code is Code.REPLICATED_SINCE_SNAPSHOT
    assert refusal.sentence.startswith("disk-1: Replication repl-1 started at")
    assert judge(changed_records(evidence, volumes=(make.volume_row(0), make.volume_row(1)))) == ()


def cleaned_at(at: datetime) -> VmContext:
    summary: dict[str, object] = {"operation": OPERATION, "completed_at": at.isoformat()}
    return replace(make.records().context, last_operation_summary=summary)


class TestTheSameSecond:
    """A failover's row may hold whole seconds; what is of the second of an end may have begun after it."""

    @pytest.mark.rule("5-need")
    def test_a_failover_of_the_second_of_a_cleanup_is_not_settled_by_it(self) -> None:
        ended = make.failover(status="failed", completed_at=FAILED_OVER_AT + timedelta(minutes=30))
        records = make.records(failovers=(ended,), context=cleaned_at(FAILED_OVER_AT + HALF), replications=())
        facts = make.at_home(1)
        assert revert_need(build(records=records), facts, VolumePlace.ON_OMA).needed
        assert failovers_since(records) == (ended,)
        later = replace(records, context=cleaned_at(FAILED_OVER_AT + SECOND))
        assert not revert_need(build(records=later), facts, VolumePlace.ON_OMA).needed
        assert failovers_since(later) == ()

    @pytest.mark.rule("5-need")
    def test_a_replication_of_the_second_in_which_the_failover_ended_settles_nothing(self) -> None:
        end = FAILED_OVER_AT + timedelta(minutes=30)
        ended = make.failover(status="failed", completed_at=end)
        for began, needed in ((end, True), (end + SECOND, False)):
            row = make.replication(started_at=began, completed_at=NOW)
            evidence = changed_records(build(), failovers=(ended,), replications=(row,))
            assert revert_need(evidence, make.at_home(1), VolumePlace.ON_OMA).needed is needed

    @pytest.mark.rule("5-need")
    def test_a_failover_of_the_second_of_a_proven_revert_may_have_begun_after_it(self) -> None:
        target = Target(volume_id=volume_id(1), snapshot_id=snapshot_id(1))
        kind, state = ActionKind.REVERT_SNAPSHOT, ActionState.EXECUTED
        for ended, needed in ((FAILED_OVER_AT + HALF, True), (FAILED_OVER_AT + SECOND, False)):
            proof = Action("action-1", "job-1", Phase.SNAPSHOTS, 1, kind, target, state, ended_at=ended)
            evidence = changed_records(build(), proven=(proof,))
            assert revert_need(evidence, make.detached(1), VolumePlace.DETACHED).needed is needed


@pytest.mark.rule("5-need")
@pytest.mark.parametrize("mode", ["", "cloudstack", "Failover"])
def test_a_mode_that_is_not_the_omas_excludes_nothing(mode: str) -> None:
    evidence = changed_records(build(), joblog=(make.joblog(step_names=()),))
    facts = make.at_home(1)
    assert isinstance(facts.mapping, Mapping)
    assert not revert_need(evidence, facts, VolumePlace.ON_OMA).needed
    other = replace(facts, mapping=replace(facts.mapping, operation_mode=mode))
    found = revert_need(evidence, other, VolumePlace.ON_OMA)
    assert (found.needed, found.reason) == (True, f"its mapping stands at {mode or 'no mode'}")


def untouched_but_open(answer: DeviceHolders | Unanswered | None) -> Evidence:
    """A failover is open that reached no step; both volumes are home, and of the first nobody says who holds it."""
    first = replace(make.at_home(0), holders=answer)
    evidence = build(volumes=(first, make.at_home(1)), devices=make.scan(0, 1), snapshots=())
    volumes = tuple(make.volume_row(number, snapshot_id=None) for number in range(2))
    return changed_records(evidence, joblog=(make.joblog(step_names=()),), volumes=volumes)


@pytest.mark.rule("3-unknown", "3-old-daemon")
@pytest.mark.parametrize(
    ("answer", "next_step"),
    [
        (Unanswered("who holds it", "Volume Daemon", "not_found", "not_found"), "Install the Volume Daemon"),
        (Unanswered("who holds it", "Volume Daemon", "no answer"), "See what the Volume Daemon lacks"),
        (make.held_by(0, unread=("process 1: Permission denied",)), "See what the Volume Daemon lacks"),
        (None, "Ask again."),
    ],
    ids=["old", "silent", "blind", "gone"],
)
def test_while_a_failover_is_open_an_unknown_holder_is_not_none(
    answer: DeviceHolders | Unanswered | None, next_step: str
) -> None:
    """Somebody who holds the device would be the reason for a revert; nobody who can't be told is not nobody."""
    assert not list(device_in_use(untouched_but_open(make.held_by(0))))
    (refusal,) = judge(untouched_but_open(answer))
    assert refusal.code is Code.STATE_UNKNOWN
    assert refusal.next_step.startswith(next_step)


class TestNextSteps:
    @pytest.mark.rule("3-end-holders")
    def test_what_was_said_already_is_not_lost(self) -> None:
        words = Words(end_test=True, snapshots=((volume_id(1), SOMEBODYS),), reason="the drill is over")
        first = make.at_home(0, mode="failover", holders=make.held_by(0, make.injection()))
        (refusal,) = device_in_use(build(volumes=(first, make.on_test_vm(1)), devices=make.scan(0), words=words))
        assert refusal.next_step.endswith(
            f"oma cleanup pgtest1 --end-test --end-holders --snapshot {volume_id(1)}={SOMEBODYS} "
            "--reason 'the drill is over'"
        )

    @pytest.mark.rule("4-detached-everywhere")
    def test_a_device_that_stays_can_be_looked_at(self) -> None:
        (refusal,) = device_agrees(build(volumes=(make.at_home(0), make.detached(1, on_oma=True))))
        assert refusal.next_step.endswith(f"curl http://127.0.0.1:8090/api/v1/volumes/{volume_id(1)}/holders")

    @pytest.mark.rule("5-fits")
    def test_a_vm_snapshot_is_told_once_and_how_to_be_rid_of_it(self) -> None:
        twin = replace(make.tracked(1), snapshot_id=SOMEBODYS, cloud=make.snapshot(1, id=SOMEBODYS))
        snapshots = (make.tracked(0), make.tracked(1), twin)
        refusals = list(snapshots_fit(build(vm_snapshot_holders=(TEST_VM,), snapshots=snapshots)))
        assert len(refusals) == 2
        for refusal in refusals:
            assert refusal.sentence.count("carries a VM snapshot") == 1
            assert refusal.next_step.endswith(f"cs listVMSnapshot virtualmachineid={TEST_VM} listall=true")


@pytest.mark.rule("5-candidate")
class TestSomebodysOwnSnapshot:
    def named(self, name: str) -> Evidence:
        snapshot: CloudSnapshot = make.snapshot(1, id=SOMEBODYS, name=name)
        volumes = (make.volume_row(0), make.volume_row(1, snapshot_id=None))
        mappings = (make.mapping_row(0), make.mapping_row(1, ossea_snapshot_id=None))
        evidence = changed_records(build(snapshots=(make.tracked(0),)), volumes=volumes, mappings=mappings)
        words = Words(snapshots=((volume_id(1), SOMEBODYS),), reason="it is the right one")
        return replace(evidence, words=words, named_snapshots=(snapshot,))

    def test_it_is_gone_back_to_and_kept(self) -> None:
        evidence = self.named("nightly-backup")
        assert judge(evidence) == ()
        plan = build_plan(evidence)
        kinds = [action.kind.value for action in plan.actions if action.target.snapshot_id == SOMEBODYS]
        assert kinds == ["revert_snapshot"]
        assert any("nightly-backup" in risk and "it is not deleted" in risk for risk in plan.risks)

    def test_one_of_a_test_failover_goes_with_the_others(self) -> None:
        plan = build_plan(self.named("multi-test-failover-pgtest1"))
        kinds = [action.kind.value for action in plan.actions if action.target.snapshot_id == SOMEBODYS]
        assert kinds == ["revert_snapshot", "delete_snapshot"]
        assert not any(SOMEBODYS in risk for risk in plan.risks)


@pytest.mark.rule("2-needs-cleanup")
@pytest.mark.parametrize(("listed", "refused"), [(True, False), (False, True)])
def test_a_snapshot_of_a_failover_that_ended_as_failed_is_something_to_clean_while_it_is_there(
    listed: bool, refused: bool
) -> None:
    """Only its row tracks it; rows keep such ids for years, so that it has to be there still."""
    ended = make.failover(status="failed", ossea_snapshot_id=snapshot_id(0), completed_at=NOW - timedelta(hours=1))
    fact = replace(make.tracked(0), tracked_in=("failover_jobs",))
    facts = (fact,) if listed else (replace(fact, volume_id=None, cloud=None),)
    evidence = changed_records(make.nothing_left(snapshots=facts), failovers=(ended,))
    assert [one.code for one in something_to_clean(evidence)] == ([Code.NOTHING_TO_CLEAN] if refused else [])


async def test_a_question_that_is_put_twice_and_answered_never_is_told_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = await stage.add()
    await stage.sql("UPDATE failover_jobs SET destination_vm_id = NULL")

    async def refuse(_cloud: FakeCloud, _ids: object) -> None:
        raise UpstreamError(Fault.REFUSED, stage.cloud.weather.no_answer().upstream)

    monkeypatch.setattr(FakeCloud, "list_vms", refuse)
    records = await stage.deps.inventory.get_records(vm.context_id)
    evidence = await collect_evidence(records, World(stage.cloud, stage.volumes, stage.clock), GuardLimits(), 5)
    assert [one.question for one in evidence.unanswered] == ["the VMs"]
