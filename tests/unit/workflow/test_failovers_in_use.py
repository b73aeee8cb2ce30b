"""Live failovers and finished tests: section 2's rules "Live failover" and "A finished test failover"."""

from __future__ import annotations

from datetime import timedelta

import pytest

from oma.domain.actions import MARKER_KINDS, ActionKind
from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence, VmHistory
from oma.domain.records import FailoverRecord
from oma.domain.states import VolumePlace
from oma.domain.verdict import of_finished
from oma.domain.words import SILENT, Words
from oma.domain.world import CloudVm, Unanswered, VmEvent
from oma.workflow.guards import judge
from oma.workflow.planning import build_plan
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import FAILED_OVER_AT, NOW, OMA, TEST_VM, build, changed_records

pytestmark = pytest.mark.rule("2-live-started", "2-live-never-started", "2-live-without-vm", "2-finished-test")

CREATED = VmEvent("VM.CREATE", FAILED_OVER_AT, "Successfully created entity for deploying Vm. Vm Id: 7")
DEPLOYED = VmEvent("VM.CREATE", FAILED_OVER_AT, "Successfully completed deploying Vm. Vm Id: 7")
SAID = Words(force=True, destination_vm_id=TEST_VM, reason="the failover is given up")


def live(
    *,
    state: str | None = "Stopped",
    events: tuple[VmEvent, ...] | Unanswered | None = (CREATED, DEPLOYED),
    steps: tuple[str, ...] = ("source-vm-power-off", "vm-creation", "volume-attachment"),
    words: Words = SILENT,
    **failover: object,
) -> Evidence:
    """A dead live failover whose VM was created and never started; the volumes hang on it."""
    records = make.records(
        failovers=(make.failover(job_type="live", **failover),), joblog=(make.joblog(step_names=steps),)
    )
    vms = (CloudVm(OMA, "oma", "Running"), *((CloudVm(TEST_VM, "pgtest1", state),) if state else ()))
    volumes = (make.on_test_vm(0), make.on_test_vm(1)) if state else (make.detached(0), make.detached(1))
    histories = () if events is None else (VmHistory(TEST_VM, events),)
    return build(records=records, vms=vms, volumes=volumes, histories=histories, words=words)


def first(evidence: Evidence) -> Refusal:
    return judge(evidence)[0]


STARTED = [
    {"state": "Running"},
    {"state": "Starting"},
    {"state": "Stopping"},
    {"events": (CREATED, VmEvent("VM.START", NOW))},
    {"events": (CREATED, VmEvent("VM.CREATE", NOW, "starting Vm. Vm Id: 7", "Started"))},
    {"events": (CREATED, VmEvent("VM.CREATE", NOW, "Successfully completed starting Vm. Vm Id: 7"))},
    {"events": (CREATED, VmEvent("VM.STOP", NOW))},
    {"events": (CREATED, VmEvent("VM.REBOOT", NOW))},
    {"events": (CREATED, VmEvent("VM.MIGRATE", NOW))},
    {"events": ()},
    {"events": (VmEvent("VM.DESTROY", NOW),)},
    {"events": None},
    {"events": Unanswered("what happened to it", "CloudStack", "no answer")},
    {"steps": ("vm-creation", "vm-startup-and-validation")},
    {"status": "completed"},
]


class TestLiveFailover:
    @pytest.mark.parametrize("found", STARTED)
    @pytest.mark.parametrize("words", [SILENT, SAID, Words(end_test=True, reason="x")])
    def test_one_that_started_or_cannot_be_told_is_never_undone(self, found: dict[str, object], words: Words) -> None:
        assert first(live(**found, words=words)).code is Code.LIVE_FAILOVER  # type: ignore[arg-type]

    def test_the_sentence_says_by_what_it_is_known(self) -> None:
        assert "CloudStack's event log shows VM.START at 2026-03-01T03:00:00Z" in first(live(**STARTED[3])).sentence  # type: ignore[arg-type]
        assert "reached vm-startup-and-validation" in first(live(**STARTED[13])).sentence  # type: ignore[arg-type]

    def test_one_that_never_started_names_the_command(self) -> None:
        refusal = first(live())
        assert refusal.code is Code.LIVE_FAILOVER
        assert f"oma cleanup pgtest1 --force --destination-vm-id {TEST_VM} --reason" in refusal.next_step

    @pytest.mark.parametrize("found", [{}, {"state": "Running"}])
    def test_its_volumes_are_no_second_reason(self, found: dict[str, object]) -> None:
        assert {refusal.code for refusal in judge(live(**found))} == {Code.LIVE_FAILOVER}  # type: ignore[arg-type]

    def test_the_scheduled_line_of_a_deployment_tells_no_start(self) -> None:
        scheduled = VmEvent("VM.CREATE", NOW, "Scheduled async job for starting Vm. Vm Id: 7", "Scheduled")
        assert judge(live(events=(CREATED, scheduled), words=SAID)) == ()

    @pytest.mark.parametrize(
        "words",
        [
            Words(force=True, reason="x"),
            Words(destination_vm_id=TEST_VM, reason="x"),
            Words(force=True, destination_vm_id=OMA, reason="x"),
        ],
    )
    def test_half_of_the_words_do_not_pass_it(self, words: Words) -> None:
        assert first(live(words=words)).code is Code.LIVE_FAILOVER

    def test_with_its_id_it_is_emptied_and_never_destroyed(self) -> None:
        evidence = live(words=SAID)
        assert judge(evidence) == ()
        plan = build_plan(evidence)
        assert [volume.place for volume in plan.volumes] == [VolumePlace.ON_TEST_VM, VolumePlace.ON_TEST_VM]
        kinds = {action.kind for action in plan.actions}
        assert ActionKind.DETACH_VOLUME in kinds
        assert not kinds & {ActionKind.DESTROY_VM, ActionKind.STOP_VM}
        assert plan.risks[0].startswith("The source VM was powered off by this failover")
        assert "The VM pgtest1 of the live failover is emptied and left; it is never destroyed." in plan.risks
        assert "The live failover passed by force: the failover is given up" in plan.observed
        assert "The VM pgtest1 of the live failover was emptied and left" in of_finished(plan).next

    @pytest.mark.parametrize("recorded", [TEST_VM, None])
    def test_without_a_vm_it_is_cleaned_like_a_test(self, recorded: str | None) -> None:
        evidence = live(state=None, destination_vm_id=recorded)
        assert judge(evidence) == ()
        plan = build_plan(evidence)
        assert plan.source_powered_off
        (risk,) = [risk for risk in plan.risks if "reached vm-creation" in risk]
        assert (TEST_VM in risk) is (recorded is not None)

    def test_without_a_known_vm_a_startup_counts(self) -> None:
        steps = ("vm-creation", "vm-startup-and-validation")
        assert first(live(state=None, destination_vm_id=None, steps=steps)).code is Code.LIVE_FAILOVER

    def test_vms_that_nobody_listed_are_unknown(self) -> None:
        evidence = live(state=None)
        evidence = build(
            records=evidence.records, volumes=evidence.volumes, vms=(), unanswered=(make.unanswered("the VMs"),)
        )
        refusal = first(evidence)
        assert refusal.code is Code.STATE_UNKNOWN
        assert "live failover failover-1" in refusal.sentence

    def test_an_older_one_that_never_ended_counts_too(self) -> None:
        older = make.failover(id=0, job_id="live-0", job_type="live", status="pending", destination_vm_id="elsewhere")
        evidence = changed_records(build(), failovers=(make.failover(), older))
        assert judge(evidence) == ()
        there = CloudVm("elsewhere", "pgtest1", "Running")
        evidence = build(records=evidence.records, vms=(*evidence.vms, there))
        assert (first(evidence).code, first(evidence).evidence["failover_job_id"]) == (Code.LIVE_FAILOVER, "live-0")

    def test_an_older_one_that_ended_does_not(self) -> None:
        older = make.failover(id=0, job_id="live-0", job_type="live", status="failed")
        assert judge(changed_records(build(), failovers=(make.failover(), older))) == ()

    def test_an_unknown_type_is_not_taken_for_a_test(self) -> None:
        assert first(changed_records(build(), failovers=(make.failover(job_type=""),))).code is Code.LIVE_FAILOVER


def finished(by: str) -> tuple[FailoverRecord, str]:
    return make.failover(status="completed" if by == "row" else "pending"), "running" if by == "row" else "completed"


def drill(by: str = "row", state: str = "Running", words: Words = SILENT) -> Evidence:
    row, joblog = finished(by)
    records = make.records(failovers=(row,), joblog=(make.joblog(status=joblog),))
    vms = (CloudVm(OMA, "oma", "Running"), CloudVm(TEST_VM, "pgtest1-test", state))
    return build(records=records, vms=vms, words=words)


class TestFinishedTest:
    @pytest.mark.parametrize("by", ["row", "joblog"])
    @pytest.mark.parametrize("state", ["Running", "Stopped", "Error", "Starting"])
    def test_people_may_be_on_its_vm(self, by: str, state: str) -> None:
        refusal = first(drill(by, state))
        assert refusal.code is Code.TEST_FAILOVER_ACTIVE
        assert f"its VM pgtest1-test is {state}" in refusal.sentence
        assert "oma cleanup pgtest1 --end-test --reason" in refusal.next_step
        assert refusal.evidence["vm_state"] == state

    @pytest.mark.parametrize("vms", [(), (CloudVm(TEST_VM, "pgtest1-test", "Destroyed"),)])
    def test_without_its_vm_it_is_no_drill_any_more(self, vms: tuple[CloudVm, ...]) -> None:
        records = make.records(failovers=(make.failover(status="completed"),))
        free = (make.detached(0), make.detached(1))
        assert judge(build(records=records, volumes=free, vms=(CloudVm(OMA, "oma", "Running"), *vms))) == ()

    @pytest.mark.parametrize("by", ["row", "joblog"])
    def test_a_person_ends_the_drill(self, by: str) -> None:
        evidence = drill(by, words=Words(end_test=True, reason="nobody is on it"))
        assert judge(evidence) == ()
        plan = build_plan(evidence)
        kinds = [action.kind for action in plan.actions if action.kind not in MARKER_KINDS]
        assert kinds[0] is ActionKind.STOP_VM
        assert ActionKind.DESTROY_VM in kinds
        assert "The finished test failover failover-1 passed by end_test: nobody is on it" in plan.observed
        assert plan.open_failover_ids == (() if by == "row" else (1,)), "a completed row stays completed"
        assert plan.open_joblog_ids == (("failover-1",) if by == "row" else ())

    def test_a_drill_that_is_alone_left_is_something_to_clean(self) -> None:
        quiet = make.nothing_left()
        records = make.records(
            volumes=quiet.records.volumes,
            mappings=quiet.records.mappings,
            context=quiet.records.context,
            failovers=(make.failover(status="completed", completed_at=NOW - timedelta(hours=1)),),
            joblog=(make.joblog(status="completed", step_names=()),),
        )
        vms = (CloudVm(OMA, "oma", "Running"), CloudVm(TEST_VM, "pgtest1-test", "Stopped"))
        said = Words(end_test=True, reason="x")
        evidence = build(
            records=records, volumes=quiet.volumes, snapshots=(), devices=quiet.devices, vms=vms, words=said
        )
        assert Code.NOTHING_TO_CLEAN not in [refusal.code for refusal in judge(evidence)]

    def test_end_test_passes_nothing_else(self) -> None:
        row, _ = finished("row")
        records = make.records(failovers=(row,), joblog=(make.joblog(),))
        moved = (make.on_test_vm(0), make.on_test_vm(1, vm_id=make.FOREIGN_VM))
        said = Words(end_test=True, reason="x")
        assert first(build(records=records, volumes=moved, words=said)).code is Code.VOLUME_ON_FOREIGN_VM

    def test_vms_that_nobody_listed_are_unknown(self) -> None:
        evidence = drill()
        evidence = build(records=evidence.records, vms=(), unanswered=(make.unanswered("the VMs"),))
        assert first(evidence).code is Code.STATE_UNKNOWN
        assert "finished; whether its VM is still there" in first(evidence).sentence
