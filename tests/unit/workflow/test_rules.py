"""The pure rules under the guards: identity, snapshots, need of a revert, need of a clean-up, life."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from oma.domain.actions import Action, ActionKind, Target
from oma.domain.evidence import Evidence, GuardLimits
from oma.domain.records import OmaConfig
from oma.domain.states import ActionState, Phase, VolumePlace
from oma.domain.world import CloudVm, VolumeFacts
from oma.workflow.identity import needs_volume_comparison, oma_problem, uuid_forms
from oma.workflow.observe import choose_config
from oma.workflow.revert_need import revert_need
from oma.workflow.since import oldest_failover_at
from oma.workflow.snapshot_rules import choose_snapshot, snapshot_problems
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import FAILED_OVER_AT, GIB, NOW, OMA, SNAPSHOT_AT, build, changed_records, volume_id

LIMITS = GuardLimits()


@pytest.mark.rule("1-identity")
class TestIdentity:
    def test_the_machines_uuid_proves_it(self) -> None:
        assert oma_problem(build()) is None

    def test_either_byte_order_does(self) -> None:
        assert oma_problem(build(devices=make.scan(product_uuid="00020003-0004-0005-0006-000700080009"))) is None
        assert uuid_forms("00112233-4455-6677-8899-AABBCCDDEEFF\n") == {
            "00112233-4455-6677-8899-aabbccddeeff",
            "33221100-5544-7766-8899-aabbccddeeff",
        }
        assert uuid_forms("Not Specified") == frozenset()

    def test_another_machine_is_not_the_oma(self) -> None:
        problem = oma_problem(build(devices=make.scan(product_uuid="11111111-0400-0500-0006-000700080009")))
        assert problem is not None
        assert problem.startswith("This appliance is 11111111-0400-0500-0006-000700080009, but")

    @pytest.mark.parametrize("state", ["Stopped", "Migrating"])
    def test_it_has_to_run(self, state: str) -> None:
        problem = oma_problem(build(vms=(CloudVm(OMA, "oma", state),)))
        assert problem == f"CloudStack shows the OMA oma as {state}, not Running."

    def test_it_has_to_be_listed_and_known(self) -> None:
        assert "does not list the OMA" in (oma_problem(build(vms=())) or "")
        assert "can't be told" in (oma_problem(build(config=None)) or "")

    def test_trust_trusts(self) -> None:
        trusting = GuardLimits(oma_identity="trust")
        assert oma_problem(build(limits=trusting, devices=make.scan(product_uuid=None))) is None
        assert not needs_volume_comparison("trust", None)

    def test_without_the_uuid_a_volume_proves_it(self) -> None:
        blind = {"devices": make.scan(0, product_uuid=None), "volumes": (make.at_home(0), make.on_test_vm(1))}
        assert oma_problem(build(**blind, volumes_on_oma=(volume_id(0),))) is None
        assert needs_volume_comparison("dmi", None)
        assert needs_volume_comparison("volumes", OMA)

    def test_without_any_volume_to_compare_it_says_what_to_set(self) -> None:
        problem = oma_problem(build(devices=make.scan(product_uuid=None), volumes_on_oma=(volume_id(7),)))
        assert problem is not None
        assert "set oma.identity = trust" in problem

    def test_a_device_that_cloudstack_shows_elsewhere_disproves_it(self) -> None:
        problem = oma_problem(build(devices=make.scan(0, 7, product_uuid=None), volumes_on_oma=(volume_id(7),)))
        assert problem == "This appliance shows disk-0, which CloudStack shows on another VM."


@pytest.mark.rule("1-config")
class TestConfiguration:
    def test_volumes_without_one_take_the_single_active_one(self) -> None:
        unnamed = tuple(make.volume_row(number, ossea_config_id=None) for number in range(2))
        found = choose_config(make.records(volumes=unnamed))
        assert found is not None
        assert found.id == 1

    def test_several_cannot_be_told_apart(self) -> None:
        two = (OmaConfig(1, "a", OMA, is_active=True), OmaConfig(2, "b", OMA, is_active=True))
        unnamed = tuple(make.volume_row(number, ossea_config_id=None) for number in range(2))
        assert choose_config(make.records(volumes=unnamed, configs=two)) is None
        mixed = (make.volume_row(0), make.volume_row(1, ossea_config_id=2))
        assert choose_config(make.records(volumes=mixed, configs=two)) is None


@pytest.mark.rule("5-fits")
class TestSnapshotChecks:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"volume_id": volume_id(9)}, f"but CloudStack shows it on volume {volume_id(9)}."),
            ({"volume_id": None}, "but CloudStack shows it on volume None."),
            ({"state": "BackingUp"}, "is BackingUp, not BackedUp."),
            ({"created": None}, "carries no creation time."),
            ({"created": FAILED_OVER_AT - timedelta(seconds=1)}, "before the oldest failover since"),
            ({"size_bytes": GIB - 512}, "a revert would resize it."),
            ({"revertable": False}, "can't be reverted to."),
        ],
    )
    def test_each_fault_is_found(self, changes: dict[str, object], words: str) -> None:
        problems = snapshot_problems(
            make.snapshot(1, **changes), make.cloud_volume(1), not_before=FAILED_OVER_AT, vm_snapshot_on_holder=False
        )
        assert len(problems) == 1
        assert words in problems[0]

    def test_a_vm_snapshot_on_the_holder_forbids_it(self) -> None:
        evidence = build(vm_snapshot_holders=(make.TEST_VM,))
        choice = choose_snapshot(evidence, make.cloud_volume(1))
        assert choice.snapshot is None
        assert "carries a VM snapshot" in choice.problems[0]

    def test_the_good_one_is_chosen_beside_a_dead_id(self) -> None:
        dead = replace(make.tracked(1, cloud=None), snapshot_id="dead")
        choice = choose_snapshot(build(snapshots=(make.tracked(1), dead)), make.cloud_volume(1))
        assert (choice.snapshot and choice.snapshot.id, choice.dead) == (make.snapshot_id(1), ("dead",))

    def test_two_that_fit_are_none(self) -> None:
        twin = replace(make.tracked(1, id="twin"), snapshot_id="twin")
        choice = choose_snapshot(build(snapshots=(make.tracked(1), twin)), make.cloud_volume(1))
        assert choice.snapshot is None
        assert not choice.missing
        at = SNAPSHOT_AT.isoformat()
        assert choice.problems[-1] == f"Two snapshots fit disk-1: {make.snapshot_id(1)} ({at}), twin ({at})."

    def test_only_failovers_since_the_last_replication_or_cleanup_count(self) -> None:
        old = make.failover(id=0, job_id="old", created_at=NOW - timedelta(days=9), status="failed")
        assert oldest_failover_at(make.records(failovers=(make.failover(), old))) == FAILED_OVER_AT
        again = make.failover(id=2, job_id="again", created_at=FAILED_OVER_AT + timedelta(minutes=1))
        cleaned: dict[str, object] = {
            "operation": "failed-execution-cleanup",
            "completed_at": (FAILED_OVER_AT + timedelta(seconds=30)).isoformat(),
        }
        context = replace(make.records().context, last_operation_summary=cleaned)
        assert oldest_failover_at(make.records(failovers=(again, make.failover()), context=context)) == again.created_at


def _proven(at_minutes_ago: float) -> Action:
    return Action(
        "action-1",
        "job-1",
        Phase.SNAPSHOTS,
        1,
        ActionKind.REVERT_SNAPSHOT,
        Target(volume_id=volume_id(0), snapshot_id=make.snapshot_id(0)),
        ActionState.EXECUTED,
        ended_at=NOW - timedelta(minutes=at_minutes_ago),
    )


@pytest.mark.rule("5-need")
class TestNeedOfARevert:
    def _need(self, evidence: Evidence, facts: VolumeFacts, place: VolumePlace) -> tuple[bool, str]:
        need = revert_need(evidence, facts, place)
        return need.needed, need.reason

    def test_what_left_the_oma_needs_one(self) -> None:
        assert self._need(build(), make.on_test_vm(0), VolumePlace.ON_TEST_VM)[0]
        assert self._need(build(), make.detached(0), VolumePlace.DETACHED)[0]

    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            (make.at_home(0, on_oma=False), "the OMA does not show its device"),
            (replace(make.at_home(0), mapping=None), "the Volume Daemon has no mapping for it"),
            (make.at_home(0, mode="failover"), "its mapping stands at failover"),
        ],
    )
    def test_what_cannot_be_excluded_needs_one(self, facts: VolumeFacts, reason: str) -> None:
        assert self._need(build(), facts, VolumePlace.ON_OMA) == (True, reason)

    @pytest.mark.parametrize(
        "step", ["virtio-driver-injection", "vm-creation", "volume-attachment", "vm-startup-and-validation"]
    )
    def test_a_failover_that_reached_a_writing_step_needs_one(self, step: str) -> None:
        evidence = changed_records(build(), joblog=(make.joblog(step_names=("source-vm-power-off", step)),))
        assert self._need(evidence, make.at_home(0), VolumePlace.ON_OMA) == (
            True,
            f"failover {make.FAILOVER} reached {step}",
        )

    def test_a_failover_without_joblog_needs_one(self) -> None:
        assert self._need(changed_records(build(), joblog=()), make.at_home(0), VolumePlace.ON_OMA)[0]

    def test_one_that_died_before_it_wrote_does_not(self) -> None:
        evidence = changed_records(build(), joblog=(make.joblog(step_names=("source-vm-power-off",)),))
        assert not self._need(evidence, make.at_home(0), VolumePlace.ON_OMA)[0]

    def test_a_replication_after_the_failover_has_made_it_good(self) -> None:
        ended = make.failover(status="failed", completed_at=NOW - timedelta(hours=1))
        later = make.replication(
            started_at=NOW - timedelta(minutes=50), completed_at=NOW - timedelta(minutes=40), id="repl-2"
        )
        evidence = changed_records(build(), failovers=(ended,), replications=(later,))
        assert not self._need(evidence, make.at_home(0), VolumePlace.ON_OMA)[0]

    def test_a_clean_up_after_the_failover_has_made_it_good(self) -> None:
        ended = make.failover(status="failed", completed_at=NOW - timedelta(hours=1))
        cleaned: dict[str, object] = {
            "operation": "failed-execution-cleanup",
            "completed_at": (NOW - timedelta(hours=1)).isoformat(),
        }
        context = replace(make.records().context, last_operation_summary=cleaned)
        evidence = changed_records(build(), failovers=(ended,), context=context)
        assert not self._need(evidence, make.at_home(0), VolumePlace.ON_OMA)[0]
        again = make.failover(id=2, job_id=make.FAILOVER, created_at=NOW - timedelta(minutes=50))
        evidence = changed_records(evidence, failovers=(again, ended))
        assert self._need(evidence, make.at_home(0), VolumePlace.ON_OMA)[0]

    def test_a_proven_revert_of_a_partial_run_is_enough(self) -> None:
        evidence = changed_records(build(), proven=(_proven(10),))
        assert not self._need(evidence, make.detached(0), VolumePlace.DETACHED)[0]
        assert not self._need(evidence, make.at_home(0), VolumePlace.ON_OMA)[0]
        assert self._need(evidence, make.detached(1), VolumePlace.DETACHED)[0]

    def test_but_not_once_it_hangs_on_the_test_vm_again(self) -> None:
        evidence = changed_records(build(), proven=(_proven(10),))
        assert self._need(evidence, make.on_test_vm(0), VolumePlace.ON_TEST_VM)[0]

    def test_nor_once_another_failover_has_begun(self) -> None:
        evidence = changed_records(build(), proven=(_proven(150),))
        assert self._need(evidence, make.detached(0), VolumePlace.DETACHED)[0]


def test_the_time_of_the_snapshot_is_after_the_failover_in_the_default_evidence() -> None:
    assert FAILED_OVER_AT < SNAPSHOT_AT < NOW
