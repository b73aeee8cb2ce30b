"""The test VM that was never recorded, or is destroyed already: section 7."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from oma.domain.actions import ActionKind
from oma.domain.errors import Code
from oma.domain.evidence import Evidence, VmContents, VmHistory
from oma.domain.records import DoubtfulTime, RivalFailover
from oma.domain.verdict import of_finished
from oma.domain.world import CloudVm, CloudVolume, Unanswered, VmEvent
from oma.workflow.guards import judge
from oma.workflow.needs import needs_cleanup, tracked_snapshots
from oma.workflow.planning import build_plan
from oma.workflow.vm_names import build_test_vm_prefix, read_time_stamp
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import FAILED_OVER_AT, GIB, NOW, OMA, TEST_VM, build, changed_records

pytestmark = pytest.mark.rule("7-known", "7-destroyed-holds")

STAMP = int(FAILED_OVER_AT.timestamp())
LOST = "1057-vm"
CREATED = VmEvent("VM.CREATE", FAILED_OVER_AT, "Successfully created entity for deploying Vm. Vm Id: 7")
STARTED = VmEvent("VM.START", NOW)
ROOT = CloudVolume("root-1", "ROOT-7", "Ready", GIB, type="ROOT", vm_id=LOST)


def lost(
    *vms: CloudVm,
    name: str = f"pgtest1-test-{STAMP}",
    state: str = "Stopped",
    pending: str | None = None,
    events: tuple[VmEvent, ...] | Unanswered = (CREATED,),
    inside: tuple[CloudVolume, ...] | Unanswered = (ROOT,),
) -> Evidence:
    """A dead test failover that created a VM and never recorded it; the volumes are free again."""
    records = make.records(failovers=(make.failover(destination_vm_id=None),))
    found = (CloudVm(LOST, name, state, pending_job_id=pending), *vms)
    return build(
        records=records,
        vms=(CloudVm(OMA, "oma", "Running"),),
        volumes=(make.detached(0), make.detached(1)),
        named_vms=found,
        histories=tuple(VmHistory(vm.id, events) for vm in found),
        contents=tuple(VmContents(vm.id, inside) for vm in found),
    )


class TestKnownByName:
    @pytest.mark.parametrize("off_s", [-120, 0, 120])
    def test_it_is_destroyed_where_everything_fits(self, off_s: int) -> None:
        evidence = lost(name=f"pgtest1-test-{STAMP + off_s}")
        assert judge(evidence) == ()
        plan = build_plan(evidence)
        assert plan.test_vm is not None
        assert plan.test_vm.vm_id == LOST
        assert "time stamp of the failover failover-1" in plan.test_vm.known_by
        destroyed = [one.target.vm_id for one in plan.actions if one.kind is ActionKind.DESTROY_VM]
        assert destroyed == [LOST]
        assert plan.left_alone == ()

    def test_an_empty_one_is_one_as_well(self) -> None:
        assert build_plan(lost(inside=())).test_vm is not None

    @pytest.mark.parametrize(
        ("changes", "doubt"),
        [
            ({"name": f"pgtest1-test-{STAMP + 121}"}, "its name carries no time stamp of a failover"),
            ({"name": f"pgtest1-test-{STAMP - 121}"}, "its name carries no time stamp of a failover"),
            ({"name": "pgtest1-test-server"}, "its name carries no time stamp of a failover"),
            ({"state": "Running"}, "it is Running, not Stopped"),
            ({"state": "Error"}, "it is Error, not Stopped"),
            ({"pending": "cs-9"}, "CloudStack job cs-9 is under way on it"),
            ({"events": (CREATED, STARTED)}, "CloudStack's event log shows VM.START"),
            ({"events": ()}, "no longer reaches back to its creation"),
            ({"events": Unanswered("what happened to it", "CloudStack", "no answer")}, "can't be told (no answer)"),
            ({"inside": Unanswered("what hangs on it", "CloudStack", "no answer")}, "what hangs on it can't be told"),
            ({"inside": (replace(ROOT, type="DATADISK"),)}, "it holds more than a root disk of its own: ROOT-7"),
            ({"inside": (ROOT, replace(ROOT, id="root-2"))}, "it holds more than a root disk of its own"),
            ({"inside": (replace(ROOT, id=make.volume_id(0)),)}, "it holds more than a root disk of its own"),
        ],
    )
    def test_any_doubt_leaves_it_alone_and_tells(self, changes: dict[str, object], doubt: str) -> None:
        evidence = lost(**changes)  # type: ignore[arg-type]
        assert judge(evidence) == ()
        plan = build_plan(evidence)
        assert plan.test_vm is None
        assert ActionKind.DESTROY_VM not in {action.kind for action in plan.actions}
        (sentence,) = plan.left_alone
        assert doubt in sentence
        assert sentence in plan.observed
        assert sentence in plan.risks
        assert sentence in of_finished(plan).next

    def test_two_of_them_are_a_doubt(self) -> None:
        plan = build_plan(lost(CloudVm("twin", f"pgtest1-test-{STAMP + 1}", "Stopped")))
        assert plan.test_vm is None
        assert len(plan.left_alone) == 2
        assert "2 VMs carry the time stamp of this failover" in plan.left_alone[0]

    @pytest.mark.parametrize(
        ("rival", "known"),
        [
            (RivalFailover("PGTEST1", None), False),
            (RivalFailover("pgtest1", LOST), False),
            (RivalFailover("pgtest1", "its-own"), True),
            (RivalFailover("pgtest10", None), True),
            (RivalFailover("pgtest1-test-1", None), True),
        ],
    )
    def test_a_vm_that_may_be_of_another_vms_failover_is_a_doubt(self, rival: RivalFailover, *, known: bool) -> None:
        plan = build_plan(changed_records(lost(), rivals=(rival,)))
        assert (plan.test_vm is not None) is known
        assert [f"it may be of a failover of {rival.vm_name}" in one for one in plan.left_alone] == [True] * (not known)

    def test_a_failover_that_never_reached_the_creation_made_none(self) -> None:
        plan = build_plan(changed_records(lost(), joblog=(make.joblog(step_names=("virtio-driver-injection",)),)))
        assert plan.test_vm is None
        assert "the failover failover-1 never reached vm-creation" in plan.left_alone[0]

    def test_the_test_vm_of_a_vm_with_a_longer_name_is_not_even_told(self) -> None:
        plan = build_plan(lost(name=f"pgtest1-test-1-test-{STAMP}"))
        assert (plan.test_vm, plan.left_alone) == (None, ())

    def test_a_gone_one_is_nothing(self) -> None:
        plan = build_plan(lost(state="Destroyed"))
        assert (plan.test_vm, plan.left_alone) == (None, ())

    def test_a_recorded_vm_makes_names_unimportant(self) -> None:
        evidence = build(named_vms=(CloudVm(TEST_VM, f"pgtest1-test-{STAMP}", "Stopped"),))
        plan = build_plan(evidence)
        assert plan.test_vm is not None
        assert plan.test_vm.known_by.startswith("destination_vm_id")
        assert plan.left_alone == ()

    def test_in_a_repeated_hour_either_meaning_counts(self) -> None:
        doubt = DoubtfulTime(
            "failover_jobs", "failover-1", "created_at", FAILED_OVER_AT - timedelta(hours=1), FAILED_OVER_AT, "?"
        )
        for hours, known in ((0, True), (1, True), (2, False)):
            evidence = lost(name=f"pgtest1-test-{STAMP - hours * 3600}")
            evidence = changed_records(evidence, doubtful_times=(doubt,))
            assert (build_plan(evidence).test_vm is not None) is known

    def test_silence_about_the_names_is_a_risk(self) -> None:
        evidence = replace(lost(), named_vms=Unanswered("the VMs by name", "CloudStack", "no answer within 20 s"))
        assert judge(evidence) == ()
        (risk,) = [risk for risk in build_plan(evidence).risks if "reached vm-creation" in risk]
        assert "CloudStack did not say which VMs there are: no answer within 20 s" in risk

    def test_the_vm_of_an_older_failover_is_left_and_told(self) -> None:
        older = make.failover(id=0, job_id="failover-0", destination_vm_id="older")
        evidence = changed_records(build(), failovers=(make.failover(), older))
        plan = build_plan(replace(evidence, vms=(*evidence.vms, CloudVm("older", "pgtest1-old", "Stopped"))))
        (sentence,) = plan.left_alone
        assert "older failover failover-0" in sentence


class TestNames:
    @pytest.mark.parametrize(
        ("vm", "name", "stamp"),
        [
            ("pgtest1", "pgtest1-test-1772326800", 1772326800),
            ("PhilB Test machine", "philb-test-machine-test-1772326800", 1772326800),
            ("10-db", "vm-10-db-test-1772326800", 1772326800),
            ("a__b", "a-b-test-1", 1),
            ("pgtest1", "pgtest10-test-1772326800", None),
            ("pgtest1", "pgtest1-test-1772326800x", None),
            ("pgtest1", "pgtest1-test-", None),
            ("pgtest1", "pgtest1-test-\u0661", None),
            ("a" * 60, "a" * 60 + "-te", None),
            ("a" * 50, ("a" * 50 + "-test-1772326800")[:63], None),
        ],
    )
    def test_the_time_stamp_is_read_exactly(self, vm: str, name: str, stamp: int | None) -> None:
        assert read_time_stamp(vm, name) == stamp

    def test_the_prefix_is_sanitised(self) -> None:
        assert build_test_vm_prefix("Web Server (old)") == "web-server-old-test-"


class TestDestroyed:
    @staticmethod
    def destroyed(state: str = "Destroyed", *, root: bool = True, events: tuple[VmEvent, ...] = ()) -> Evidence:
        kind = "ROOT" if root else "DATADISK"
        return build(
            vms=(CloudVm(OMA, "oma", "Running"), CloudVm(TEST_VM, "pgtest1-test", state)),
            volumes=(make.on_test_vm(0, type=kind), make.detached(1)),
            histories=(VmHistory(TEST_VM, events),),
        )

    @pytest.mark.parametrize("root", [True, False])
    @pytest.mark.parametrize("state", ["Destroyed", "Expunging"])
    def test_one_that_holds_a_volume_is_critical(self, state: str, *, root: bool) -> None:
        (refusal,) = judge(self.destroyed(state, root=root))
        assert refusal.code is Code.STATE_UNKNOWN
        assert refusal.sentence.startswith(f"Critical: disk-0 hangs on pgtest1-test, which is {state}")
        assert "within 24 h of its destroy" in refusal.sentence
        assert refusal.next_step == f"Recover the VM at once: cs recoverVirtualMachine id={TEST_VM}"
        assert refusal.evidence["is_root"] is root

    def test_the_hour_of_its_expunge_is_told(self) -> None:
        (refusal,) = judge(self.destroyed(events=(VmEvent("VM.DESTROY", NOW - timedelta(hours=20)),)))
        assert refusal.sentence.endswith("an expunge may destroy it at 2026-03-01T07:00:00Z.")

    def test_a_second_destroy_does_not_put_the_hour_off(self) -> None:
        hours = {"VM.DESTROY": (30, 20, 2), "VM.RECOVER": (25,)}
        events = tuple(
            VmEvent(kind, NOW - timedelta(hours=ago)) for kind, all_of_them in hours.items() for ago in all_of_them
        )
        (refusal,) = judge(self.destroyed(events=events))
        assert refusal.evidence["expunge_due"] == "2026-03-01T07:00:00Z"

    def test_one_that_no_failover_recorded_is_as_critical(self) -> None:
        evidence = changed_records(self.destroyed(), failovers=(make.failover(destination_vm_id=None),))
        (refusal,) = judge(evidence)
        assert refusal.evidence["kind"] == "destroyed_vm_holds_volume"

    def test_one_that_the_account_may_not_see_is_told_by_its_volume(self) -> None:
        hidden = build(
            vms=(CloudVm(OMA, "oma", "Running"),),
            volumes=(make.on_test_vm(0, vm_state="Destroyed"), make.detached(1)),
        )
        (refusal,) = judge(hidden)
        assert refusal.evidence["kind"] == "destroyed_vm_holds_volume"
        assert refusal.evidence["vm_id"] == TEST_VM

    def test_one_that_holds_nothing_is_nothing(self) -> None:
        evidence = replace(self.destroyed(), volumes=(make.detached(0), make.detached(1)))
        assert judge(evidence) == ()
        assert build_plan(evidence).test_vm is None


class TestNeedOfACleanup:
    NOTHING = make.nothing_left().records

    def test_the_dead_failover_is_the_first_reason(self) -> None:
        need = needs_cleanup(build().records, NOW, make.build().limits)
        assert need.recommended
        assert need.why.startswith("The test failover failover-1 is open: dead since ")
        assert need.reasons[1:] == ("2 snapshots are still tracked.", "2 volumes are not mapped at the OMA.")

    def test_nothing_left_needs_nothing(self) -> None:
        need = needs_cleanup(self.NOTHING, NOW, make.build().limits)
        assert (need.recommended, need.why, need.reasons) == (False, "Nothing is left of a failover.", ())

    def test_a_live_failover_without_a_vm_is_offered(self) -> None:
        live = make.failover(job_type="live", destination_vm_id=None)
        assert needs_cleanup(make.records(failovers=(live,)), NOW, make.build().limits).recommended

    def test_an_ended_drill_is_not_in_use_any_more(self) -> None:
        done: dict[str, object] = {"operation": "failed-execution-cleanup", "completed_at": NOW.isoformat()}
        context = replace(self.NOTHING.context, current_status="cleanup_required", last_operation_summary=done)
        drill = make.failover(status="completed", completed_at=NOW - timedelta(hours=1))
        records = replace(self.NOTHING, context=context, failovers=(drill,))
        assert needs_cleanup(records, NOW, make.build().limits).recommended
        begun_later = replace(drill, created_at=NOW + timedelta(minutes=1))
        assert not needs_cleanup(replace(records, failovers=(begun_later,)), NOW, make.build().limits).recommended

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"open_issue_ids": ("issue-1",)}, "An open issue has to be resolved first."),
            ({"active_job_id": "job-1"}, "A clean-up is running."),
            ({"world_issue_ids": ("issue-2",)}, "A destroyed VM holds one of its volumes"),
            ({"failovers": (make.failover(job_type="live"),)}, "The newest failover is a live failover that made a VM"),
            (
                {
                    "failovers": (make.failover(job_type="live", destination_vm_id=None),),
                    "joblog": (make.joblog(step_names=("vm-startup-and-validation",)),),
                },
                "The newest failover is a live failover, and it reached vm-startup-and-validation.",
            ),
            ({"joblog": (make.joblog(status="completed"),)}, "A finished test failover is in use."),
            ({"joblog": (make.joblog(last_activity_at=NOW),)}, "Failover failover-1 wrote to its JobLog 0 s ago."),
            ({"running_jobs": (make.joblog(job_id="r-1", last_activity_at=NOW),)}, "The job r-1 (test-failover) wrote"),
            ({"replications": (make.replication(status="running", updated_at=NOW),)}, "Replication repl-1 is running"),
        ],
    )
    def test_an_obstacle_takes_the_button_away(self, changes: dict[str, object], why: str) -> None:
        need = needs_cleanup(make.records(**changes), NOW, make.build().limits)
        assert not need.recommended
        assert need.why.startswith(why)

    def test_a_snapshot_of_an_ended_failover_row_is_no_longer_tracked(self) -> None:
        ended = make.failover(status="failed", ossea_snapshot_id="old")
        assert tracked_snapshots(replace(self.NOTHING, failovers=(ended,))) == frozenset()
        assert tracked_snapshots(replace(self.NOTHING, failovers=(make.failover(ossea_snapshot_id="new"),))) == {"new"}

    def test_a_full_resync_is_awaited(self) -> None:
        waiting = replace(make.records().context, last_operation_summary={"replica": "resync_required"})
        need = needs_cleanup(make.records(context=waiting), NOW, make.build().limits)
        assert (need.recommended, need.why) == (False, "A full resync is awaited.")
