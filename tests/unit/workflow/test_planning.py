"""From judged evidence to a plan: pure, in a fixed order, with a digest that says whether it is still the same."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from oma.domain.actions import MARKER_KINDS, ActionKind, Target
from oma.domain.evidence import Evidence
from oma.domain.guidance import build_guidance
from oma.domain.plan import Plan
from oma.domain.states import PHASES, Phase, VolumePlace
from oma.domain.world import CloudVm
from oma.workflow.planning import build_plan, first_phase_problem, phases_problem
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import OMA, TEST_VM, build, changed_records, snapshot_id, volume_id

RUNNING = (CloudVm(OMA, "oma", "Running"), CloudVm(TEST_VM, "pgtest1-test", "Running"))


def kinds(plan: Plan) -> list[tuple[str, str | None]]:
    told = (one for one in plan.actions if one.kind not in MARKER_KINDS)
    return [(one.kind.value, one.target.volume_id or one.target.vm_id) for one in told]


def test_the_actions_stand_in_the_order_in_which_they_are_done() -> None:
    assert kinds(build_plan(build(vms=RUNNING))) == [
        ("stop_vm", TEST_VM),
        ("detach_volume", volume_id(0)),
        ("detach_volume", volume_id(1)),
        ("revert_snapshot", volume_id(0)),
        ("revert_snapshot", volume_id(1)),
        ("delete_snapshot", volume_id(0)),
        ("delete_snapshot", volume_id(1)),
        ("attach_volume", volume_id(0)),
        ("attach_volume", volume_id(1)),
        ("destroy_vm", TEST_VM),
        ("reset_records", None),
    ]


def test_every_detach_names_the_vm_that_it_takes_the_volume_from() -> None:
    plan = build_plan(build(volumes=(make.on_test_vm(0), make.at_home(1, mode="failover")), devices=make.scan(1)))
    detaches = {one.target.volume_id: one.target.vm_id for one in plan.actions if one.kind is ActionKind.DETACH_VOLUME}
    assert detaches == {volume_id(0): TEST_VM, volume_id(1): OMA}
    assert {one.target.vm_id for one in plan.actions if one.kind is ActionKind.ATTACH_VOLUME} == {OMA}


def test_a_stopped_test_vm_is_not_stopped_again() -> None:
    assert "stop_vm" not in [kind for kind, _ in kinds(build_plan(build()))]


@pytest.mark.parametrize("state", ["Destroyed", "Expunging"])
def test_a_test_vm_that_is_gone_is_left_alone(state: str) -> None:
    free = (make.detached(0), make.detached(1))
    vms = (CloudVm(OMA, "oma", "Running"), CloudVm(TEST_VM, "pgtest1-test", state))
    plan = build_plan(build(vms=vms, volumes=free))
    assert plan.test_vm is None
    assert not {"stop_vm", "destroy_vm"} & {kind for kind, _ in kinds(plan)}


def test_a_volume_that_is_home_and_untouched_is_left_there_and_its_snapshot_goes() -> None:
    home = build(volumes=(make.at_home(0), make.at_home(1)), devices=make.scan(0, 1), vms=RUNNING[:1])
    plan = build_plan(changed_records(home, joblog=(make.joblog(step_names=()),)))
    assert kinds(plan) == [
        ("delete_snapshot", volume_id(0)),
        ("delete_snapshot", volume_id(1)),
        ("reset_records", None),
    ]
    assert [volume.needs_revert for volume in plan.volumes] == [False, False]


def test_a_snapshot_that_cloudstack_shows_on_another_volume_is_never_planned_for() -> None:
    home = build(
        volumes=(make.at_home(0), make.at_home(1)),
        devices=make.scan(0, 1),
        vms=RUNNING[:1],
        snapshots=(make.tracked(0, volume_id=volume_id(9)), make.tracked(1, cloud=None)),
    )
    plan = build_plan(changed_records(home, joblog=(make.joblog(step_names=()),)))
    assert kinds(plan) == [("reset_records", None)]


def test_disks_stand_system_disk_first_then_by_unit_number() -> None:
    disks = (
        make.disk_row(0, disk_id="disk-2003", unit_number=3),
        make.disk_row(1, disk_id="disk-2000", unit_number=9),
        make.disk_row(2, disk_id="disk-2001", unit_number=1),
        make.disk_row(3, disk_id="disk-2002", unit_number=None),
    )
    evidence = build(
        volumes=tuple(make.on_test_vm(number) for number in range(4)),
        snapshots=tuple(make.tracked(number) for number in range(4)),
        records=make.records(disks=disks, volumes=tuple(make.volume_row(number) for number in range(4))),
    )
    plan = build_plan(evidence)
    assert [volume.volume_id for volume in plan.volumes] == [volume_id(number) for number in (1, 2, 0, 3)]
    attached = [one.target.volume_id for one in plan.actions if one.kind is ActionKind.ATTACH_VOLUME]
    assert attached == [volume_id(number) for number in (1, 2, 0, 3)]


def test_the_reset_ends_every_open_failover_and_only_running_joblog_rows() -> None:
    failovers = (
        make.failover(id=3, job_id="f3"),
        make.failover(id=2, job_id="f2", status="failed"),
        make.failover(id=1, job_id="f1", status="cleanup"),
    )
    logs = (make.joblog(job_id="f3"), make.joblog(job_id="f1", status="failed"))
    plan = build_plan(changed_records(build(), failovers=failovers, joblog=logs))
    assert (plan.open_failover_ids, plan.open_joblog_ids) == ((3, 1), ("f3",))


def test_it_says_what_was_observed_and_what_is_at_risk() -> None:
    log = make.joblog(step_names=("source-vm-power-off", "vm-creation"))
    plan = build_plan(changed_records(build(vms=RUNNING), joblog=(log,)))
    assert plan.source_powered_off
    assert plan.risks == (
        "The source VM was powered off by this failover; start it in vCenter.",
        "2 volumes lose everything written since the snapshot; from the first revert on the way is forward only.",
        "The test VM pgtest1-test is running and will be stopped.",
    )
    assert plan.observed[1] == (
        "The test VM pgtest1-test is Running; known by destination_vm_id of the failover failover-1."
    )
    assert plan.observed[2] == (
        "disk-0 (disk-2000) is on test VM as its root disk; the Volume Daemon says failover at remote-vm-0; "
        f"it goes back to snapshot {snapshot_id(0)} (tracked in ossea_volumes and device_mappings, made "
        "2026-03-01T01:10:00+00:00, 1 h 50 min old): it is on test VM, so it left the OMA."
    )


class TestDigest:
    def test_the_same_world_a_minute_later_has_the_same(self) -> None:
        later = replace(build(), observed_at=make.NOW + timedelta(minutes=1))
        assert build_plan(later).digest == build_plan(build()).digest

    def test_a_plan_read_from_the_journal_has_the_same(self) -> None:
        plan = build_plan(build(vms=RUNNING))
        assert Plan.from_json(json.loads(json.dumps(plan.as_json()))) == plan

    @pytest.mark.parametrize(
        "other",
        [
            build(vms=RUNNING),
            build(volumes=(make.on_test_vm(0), make.detached(1))),
            build(
                volumes=(make.on_test_vm(0), make.on_test_vm(1, size_bytes=2 * make.GIB)),
                snapshots=(make.tracked(0), make.tracked(1, size_bytes=2 * make.GIB)),
            ),
            changed_records(build(), failovers=(make.failover(id=2),)),
            changed_records(build(), context=replace(build().records.context, current_status="cleanup_required")),
            changed_records(build(), context=replace(build().records.context, current_job_id="repl-2")),
        ],
        ids=["VM state", "place", "size", "failover", "status", "current job"],
    )
    def test_another_world_has_another(self, other: Evidence) -> None:
        assert build_plan(other).digest != build_plan(build()).digest


class TestPhases:
    def test_a_gap_is_named(self) -> None:
        assert phases_problem((Phase.DETACH, Phase.REATTACH)) == "phases leaves a gap: cleanup-snapshots is missing."
        assert phases_problem((Phase.REATTACH, Phase.SNAPSHOTS)) is None
        assert phases_problem((Phase.ANALYZE,)) is None
        assert phases_problem(PHASES) is None

    def test_the_first_has_to_be_the_first_that_is_not_proven(self) -> None:
        plan = build_plan(build())
        assert first_phase_problem(plan, (Phase.ANALYZE, Phase.SNAPSHOTS)) == (
            "phases begins with cleanup-snapshots, but detach-attached-volumes is the first phase that is not yet "
            "proven; begin with detach-attached-volumes."
        )
        assert first_phase_problem(plan, (Phase.ANALYZE, Phase.DETACH)) is None
        assert first_phase_problem(plan, (Phase.ANALYZE,)) is None

    def test_a_phase_without_anything_to_do_is_behind_us(self) -> None:
        free = build_plan(build(volumes=(make.detached(0), make.detached(1))))
        assert {volume.place for volume in free.volumes} == {VolumePlace.DETACHED}
        assert first_phase_problem(free, (Phase.SNAPSHOTS,)) is None


class TestGuidance:
    def test_its_steps_are_numbered_and_filled_in(self) -> None:
        target = Target(volume_id="v", snapshot_id="s")
        steps = build_guidance(ActionKind.REVERT_SNAPSHOT, target, job_id="j", remote_id="r")
        assert steps == (
            "1. Do not attach or start anything on this volume: its content is not proven.",
            "2. See the volume: cs listVolumes id=v listall=true",
            "3. See the snapshot, which is kept: cs listSnapshots id=s listall=true",
            "4. See how the revert's own job ended: cs queryAsyncJobResult jobid=r",
            "5. Read the run's log: oma jobs log j",
        )

    def test_a_step_whose_value_is_not_known_stays_out(self) -> None:
        steps = build_guidance(ActionKind.DETACH_VOLUME, Target(volume_id="v"), job_id="j", remote_id=None)
        assert [step.split(".")[0] for step in steps] == ["1", "2"]
        assert all("{" not in step for step in steps)

    def test_a_park_without_an_action_still_says_where_to_read_on(self) -> None:
        assert build_guidance(None, Target(), job_id="j", remote_id=None) == ("1. Read the run's log: oma jobs log j",)
