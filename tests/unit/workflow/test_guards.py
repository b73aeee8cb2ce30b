"""Each guard alone: when it refuses, with which sentence, next step and evidence, and when it lets pass."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.world import CloudVm, VolumeFacts
from oma.workflow.guards import judge
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import FOREIGN_VM, NOW, OMA, SNAPSHOT_AT, TEST_VM, build, changed_records, volume_id


def only(evidence: Evidence) -> Refusal:
    """The one refusal; there must be no other."""
    refusals = judge(evidence)
    assert len(refusals) == 1, [refusal.sentence for refusal in refusals]
    return refusals[0]


def with_test_vm(state: str, **changes: object) -> Evidence:
    return build(vms=(CloudVm(OMA, "oma", "Running"), CloudVm(TEST_VM, "pgtest1-test", state)), **changes)


def test_a_dead_test_failover_may_be_cleaned() -> None:
    assert judge(build()) == ()


@pytest.mark.rule("2-needs-cleanup")
def test_nothing_is_left_to_clean() -> None:
    refusal = only(make.nothing_left())
    assert refusal.code is Code.NOTHING_TO_CLEAN
    assert refusal.sentence == "pgtest1 has no open failover, no tracked snapshot, and every volume is home on the OMA."
    assert refusal.next_step == "Nothing has to be done."


@pytest.mark.parametrize(
    "evidence",
    [
        changed_records(make.nothing_left(), failovers=(make.failover(status=""),)),
        changed_records(make.nothing_left(), failovers=(make.failover(status="executing"),)),
        changed_records(make.nothing_left(), volumes=(make.volume_row(0), make.volume_row(1, snapshot_id=None))),
        changed_records(
            make.nothing_left(),
            context=replace(make.nothing_left().records.context, current_status="cleanup_required"),
        ),
    ],
    ids=["an open failover", "an unknown status", "a tracked snapshot", "the status"],
)
def test_each_reason_to_clean_is_enough(evidence: Evidence) -> None:
    assert judge(evidence) == ()


class TestOperationInProgress:
    def test_a_failover_that_wrote_a_moment_ago_is_alive(self) -> None:
        log = make.joblog(last_activity_at=NOW - timedelta(seconds=899))
        refusal = only(changed_records(build(), joblog=(log,)))
        assert refusal.code is Code.OPERATION_IN_PROGRESS
        assert refusal.sentence == "Failover failover-1 wrote to its JobLog 899 s ago."
        assert refusal.next_step == "Wait for it to end or to stay silent for 900 s, then ask again."

    def test_after_the_time_it_is_dead(self) -> None:
        log = make.joblog(last_activity_at=NOW - timedelta(seconds=900))
        assert judge(changed_records(build(), joblog=(log,))) == ()

    def test_a_sign_of_life_from_the_future_is_life(self) -> None:
        log = make.joblog(last_activity_at=NOW + timedelta(hours=1))
        assert only(changed_records(build(), joblog=(log,))).code is Code.OPERATION_IN_PROGRESS

    def test_a_replication_that_was_touched_is_alive(self) -> None:
        running = make.replication(id="repl-2", status="running", completed_at=None, updated_at=NOW)
        codes = [
            refusal.code for refusal in judge(changed_records(build(), replications=(running, make.replication())))
        ]
        assert codes[0] is Code.OPERATION_IN_PROGRESS


@pytest.mark.rule("2-not-knowing")
class TestMissingAnswers:
    def test_who_did_not_answer_is_named(self) -> None:
        refusal = only(build(unanswered=(make.unanswered("the VM snapshots"),)))
        assert refusal.code is Code.STATE_UNKNOWN
        assert refusal.sentence == "CloudStack did not say the VM snapshots: no answer within 20 s."
        assert refusal.evidence == {
            "question": "the VM snapshots",
            "asked": "CloudStack",
            "reason": "no answer within 20 s",
        }

    def test_an_unknown_volume_is_not_judged_by_what_it_is_not(self) -> None:
        silent = make.unanswered()
        facts = tuple(VolumeFacts(volume_id(number), silent, None, on_oma=False) for number in range(2))
        refusals = judge(build(volumes=facts, unanswered=(silent,)))
        assert {refusal.code for refusal in refusals} == {Code.STATE_UNKNOWN}

    def test_unlisted_snapshots_are_not_taken_for_gone(self) -> None:
        silent = make.unanswered("the tracked snapshots")
        facts = tuple(make.tracked(number, cloud=silent) for number in range(2))
        assert only(build(snapshots=facts, unanswered=(silent,))).code is Code.STATE_UNKNOWN

    def test_unscanned_devices_are_not_taken_for_absent(self) -> None:
        silent = make.unanswered("which devices the OMA shows", "Volume Daemon")
        facts = tuple(replace(make.on_test_vm(number), on_oma=silent) for number in range(2))
        assert only(build(volumes=facts, devices=silent, unanswered=(silent,))).code is Code.STATE_UNKNOWN

    def test_the_missing_answer_stands_in_its_place_before_the_later_codes(self) -> None:
        silent = make.unanswered("the VM snapshots")
        refusals = judge(build(unanswered=(silent,), snapshots=()))
        assert [refusal.code for refusal in refusals] == [
            Code.STATE_UNKNOWN,
            Code.SNAPSHOT_MISSING,
            Code.SNAPSHOT_MISSING,
        ]


@pytest.mark.rule("2-records")
class TestRecords:
    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"disks": ()}, "pgtest1 has no row in vm_disks; a VM has at least one disk."),
            (
                {"disks": (make.disk_row(0), make.disk_row(1, ossea_volume_id=None))},
                "Disk disk-2001 has no volume row.",
            ),
            ({"disks": (make.disk_row(0),)}, f"Volume disk-1 ({volume_id(1)}) belongs to 0 disks."),
            ({"disks": (make.disk_row(0), make.disk_row(1, disk_id="disk-2000"))}, "Disk id disk-2000 stands twice."),
            ({"shared_volume_ids": (volume_id(1),)}, f"Volume {volume_id(1)} is claimed by another VM's records too."),
        ],
    )
    def test_they_have_to_be_whole(self, changes: dict[str, object], sentence: str) -> None:
        refusals = judge(changed_records(build(), **changes))
        assert sentence in [refusal.sentence for refusal in refusals]
        assert {refusal.code for refusal in refusals} == {Code.STATE_UNKNOWN}

    def test_two_rows_for_one_volume_are_not_two_volumes(self) -> None:
        doubled = changed_records(build(), volumes=(make.volume_row(0), make.volume_row(1, volume_id=volume_id(0))))
        assert f"Volume {volume_id(0)} has two rows." in [refusal.sentence for refusal in judge(doubled)]


class TestPlaces:
    def test_a_volume_on_a_foreign_vm_is_left_there(self) -> None:
        foreign = make.on_test_vm(1, vm_id=FOREIGN_VM, vm_name="billing")
        refusal = only(build(volumes=(make.on_test_vm(0), foreign)))
        assert refusal.code is Code.VOLUME_ON_FOREIGN_VM
        assert refusal.sentence == "disk-1 hangs on billing, which is neither the OMA nor this failover's test VM."
        assert refusal.evidence["vm_id"] == FOREIGN_VM

    def test_the_oma_recorded_as_destination_is_no_test_vm(self) -> None:
        evidence = changed_records(build(), failovers=(make.failover(destination_vm_id=OMA),))
        assert {refusal.code for refusal in judge(evidence)} == {Code.VOLUME_ON_FOREIGN_VM}

    @pytest.mark.rule("2-listed")
    def test_a_volume_that_is_no_longer_listed_is_an_alarm(self) -> None:
        gone = VolumeFacts(volume_id(1), None, None, on_oma=False)
        refusal = only(build(volumes=(make.on_test_vm(0), gone)))
        assert refusal.code is Code.STATE_UNKNOWN
        assert refusal.sentence == f"Alarm: CloudStack no longer lists the volume disk-1 ({volume_id(1)})."

    @pytest.mark.parametrize("changes", [{"pending_job_id": "job-1"}, {"state": "RevertSnapshotting"}])
    @pytest.mark.rule("4-busy")
    def test_a_volume_in_transition_is_busy(self, changes: dict[str, str]) -> None:
        records = make.records(joblog=(make.joblog(status="failed"),))
        refusal = only(build(records=records, volumes=(make.on_test_vm(0), make.on_test_vm(1, **changes))))
        assert refusal.code is Code.VOLUME_BUSY
        assert refusal.evidence["volume_id"] == volume_id(1)

    @pytest.mark.parametrize("state", ["Starting", "Stopping", "Migrating"])
    def test_a_test_vm_in_transition_is_busy(self, state: str) -> None:
        assert only(with_test_vm(state)).code is Code.VOLUME_BUSY

    @pytest.mark.parametrize("state", ["Error", "Unknown"])
    def test_a_test_vm_that_is_never_seen_stopped_is_not_waited_for(self, state: str) -> None:
        refusal = only(with_test_vm(state))
        assert refusal.code is Code.STATE_UNKNOWN
        assert (
            refusal.sentence
            == f"The test VM pgtest1-test is {state}; whether it can still write to a volume can't be told."
        )
        assert "never with expunge" in refusal.next_step

    @pytest.mark.parametrize("place", [make.detached(1, on_oma=True), replace(make.on_test_vm(1), on_oma=True)])
    @pytest.mark.rule("4-detached-everywhere")
    def test_detached_means_detached_on_the_oma_too(self, place: VolumeFacts) -> None:
        refusal = only(build(volumes=(make.on_test_vm(0), place), devices=make.scan(1)))
        assert refusal.code is Code.STATE_UNKNOWN
        assert "but the OMA still shows its device" in refusal.sentence

    def test_an_injection_cannot_hold_a_disk_that_is_not_on_the_oma(self) -> None:
        log = make.joblog(running_step_names=("virtio-driver-injection",))
        assert judge(changed_records(build(), joblog=(log,))) == ()


class TestSnapshots:
    @pytest.mark.rule("5-missing")
    def test_a_volume_without_one_stops_everything(self) -> None:
        refusal = only(build(snapshots=(make.tracked(0),)))
        assert refusal.code is Code.SNAPSHOT_MISSING
        assert refusal.sentence == "disk-1 needs a revert and has no usable snapshot."

    def test_a_dead_id_is_named(self) -> None:
        refusal = only(build(snapshots=(make.tracked(0), make.tracked(1, cloud=None))))
        assert refusal.code is Code.SNAPSHOT_MISSING
        assert f"CloudStack no longer lists {make.snapshot_id(1)}." in refusal.sentence

    def test_one_of_another_volume_is_a_mismatch_with_both_sides(self) -> None:
        foreign = "ffffffff-aaaa-4000-8000-000000000000"
        refusal = only(build(snapshots=(make.tracked(0), make.tracked(1, volume_id=foreign))))
        assert refusal.code is Code.SNAPSHOT_MISMATCH
        assert foreign in refusal.sentence
        assert volume_id(1) in refusal.sentence
        assert refusal.evidence["tracked"][0]["cloudstack"]["volume_id"] == foreign

    def test_a_volume_that_needs_no_revert_needs_none(self) -> None:
        log = make.joblog(step_names=())
        evidence = changed_records(
            build(volumes=(make.at_home(0), make.at_home(1)), devices=make.scan(0, 1), snapshots=()), joblog=(log,)
        )
        assert judge(evidence) == ()

    @pytest.mark.parametrize("moment", ["started_at", "completed_at"])
    def test_a_replication_after_it_forbids_the_revert(self, moment: str) -> None:
        later = make.replication(id="repl-2", **{moment: SNAPSHOT_AT + timedelta(seconds=1)})
        refusals = judge(changed_records(build(), replications=(later,)))
        assert {refusal.code for refusal in refusals} >= {Code.REPLICATED_SINCE_SNAPSHOT}
        refusal = next(one for one in refusals if one.code is Code.REPLICATED_SINCE_SNAPSHOT)
        assert "Replication repl-2" in refusal.sentence
        assert refusal.evidence["snapshot_id"] == make.snapshot_id(0)


@pytest.mark.rule("2-all-refusals")
class TestPrecedence:
    ORDER = (
        Code.LIVE_FAILOVER,
        Code.TEST_FAILOVER_ACTIVE,
        Code.OPERATION_IN_PROGRESS,
        Code.VOLUME_ON_FOREIGN_VM,
        Code.DEVICE_IN_USE,
        Code.VOLUME_BUSY,
        Code.SNAPSHOT_MISSING,
        Code.SNAPSHOT_MISMATCH,
        Code.REPLICATED_SINCE_SNAPSHOT,
        Code.NOTHING_TO_CLEAN,
    )

    def test_all_refusals_are_listed_in_the_order_of_the_codes(self) -> None:
        older = make.failover(id=0, job_id="live-0", job_type="live")
        log = make.joblog(last_activity_at=NOW)
        evidence = build(
            records=make.records(failovers=(make.failover(), older), joblog=(log,)),
            volumes=(make.on_test_vm(0, vm_id=FOREIGN_VM), make.on_test_vm(1, pending_job_id="job-1")),
            snapshots=(make.tracked(1, state="Error"),),
        )
        codes = [refusal.code for refusal in judge(evidence)]
        assert codes == [
            Code.LIVE_FAILOVER,
            Code.OPERATION_IN_PROGRESS,
            Code.VOLUME_ON_FOREIGN_VM,
            Code.VOLUME_BUSY,
            Code.SNAPSHOT_MISSING,
            Code.SNAPSHOT_MISMATCH,
        ]
        assert codes == sorted(codes, key=self.ORDER.index)
