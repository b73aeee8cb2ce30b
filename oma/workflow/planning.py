"""From judged evidence to a plan: which actions, on what, in which order. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from oma.domain.actions import ActionKind, PlannedAction, Target
from oma.domain.evidence import Evidence
from oma.domain.marking import build_leftover_unmarking, build_own_marking, build_unmarking
from oma.domain.plan import Plan, TestVmPlan, VolumePlan
from oma.domain.records import FAILED, READY_FOR_FAILOVER, DiskRecord, FailoverRecord, VolumeRecord
from oma.domain.states import PHASES, Phase, VolumePlace, phase_seq
from oma.domain.verdict import SOURCE_OFF, was_source_powered_off
from oma.domain.world import CloudVolume, Mapping, Mark, Unanswered
from oma.workflow.holding import dead_injections, end_risks, plan_ends
from oma.workflow.leftover import build_test_vm_plan, find_test_vm, left_alone, place_of
from oma.workflow.revert_need import revert_need
from oma.workflow.snapshot_rules import choose_snapshot
from oma.workflow.snapshot_words import leftover_risks, revert_words, snapshot_observations, snapshots_to_delete
from oma.workflow.telling import observed_doubts, observed_life, observed_vms, vm_risks


def build_plan(evidence: Evidence) -> Plan:
    """The plan of a run whose evidence passed every guard; `evidence.config` is then known."""
    records, context = evidence.records, evidence.records.context
    if evidence.config is None:
        raise ValueError("a plan is built only after the guards have passed")
    oma_vm_id = evidence.config.oma_vm_id
    test_vm = build_test_vm_plan(evidence)
    volumes = _plan_volumes(evidence, oma_vm_id)
    open_failovers = tuple(failover for failover in records.failovers if failover.is_open)
    powered_off = was_source_powered_off(records)
    ends = tuple(plan_ends(evidence, volumes))
    return Plan(
        context_id=context.context_id,
        vm_name=context.vm_name,
        former_status=context.current_status,
        former_job_id=context.current_job_id,
        oma_vm_id=oma_vm_id,
        test_vm=test_vm,
        volumes=volumes,
        open_failover_ids=tuple(failover.id for failover in open_failovers),
        open_joblog_ids=tuple(
            log.job_id
            for failover in (*open_failovers, *_ended_drill(evidence))
            if (log := records.joblog_of(failover)) is not None and log.status in ("pending", "running")
        ),
        actions=(
            *build_leftover_unmarking(_leftover_marks(evidence)),
            *_plan_actions(volumes, oma_vm_id, test_vm, snapshots_to_delete(evidence, volumes), ends=ends),
        ),
        observed=(*_observations(evidence, volumes, test_vm), *dead_injections(evidence), *observed_doubts(evidence)),
        risks=(
            *_risks(volumes, powered_off=powered_off),
            *vm_risks(evidence, test_vm),
            *end_risks(evidence, ends),
            *leftover_risks(evidence, volumes),
        ),
        source_powered_off=powered_off,
        left_alone=left_alone(evidence),
    )


def _ended_drill(evidence: Evidence) -> tuple[FailoverRecord, ...]:
    """A test failover whose row is completed and that a person ends: the row stays, its JobLog must not stay open."""
    newest = evidence.records.newest_failover
    return (newest,) if newest is not None and newest.status == "completed" and evidence.words.end_test else ()


def first_phase_problem(plan: Plan, phases: tuple[Phase, ...]) -> str | None:
    """Why a run can't begin with these phases: an earlier one still has something to do. None when it can."""
    chosen = [phase for phase in phases if phase is not Phase.ANALYZE]
    if not chosen:
        return None
    for phase in PHASES[1:]:
        if phase is chosen[0]:
            return None
        if any(action.phase is phase for action in plan.actions):
            return (
                f"phases begins with {chosen[0].value}, but {phase.value} is the first phase that is not yet proven; "
                f"begin with {phase.value}."
            )
    return None


def phases_problem(phases: tuple[Phase, ...]) -> str | None:
    """Why this choice of phases is not allowed: a gap. None when it is."""
    numbers = sorted({phase_seq(phase) for phase in phases if phase is not Phase.ANALYZE})
    for number in range(numbers[0], numbers[-1]) if numbers else ():
        if number not in numbers:
            return f"phases leaves a gap: {PHASES[number - 1].value} is missing."
    return None


def _plan_volumes(evidence: Evidence, oma_vm_id: str) -> tuple[VolumePlan, ...]:
    disks = {disk.ossea_volume_id: disk for disk in evidence.records.disks}
    ordered = sorted(evidence.records.volumes, key=lambda volume: _disk_order(disks[volume.id]))
    return tuple(
        _plan_volume(evidence, volume, disks[volume.id], oma_vm_id=oma_vm_id, order=order)
        for order, volume in enumerate(ordered)
    )


def _plan_volume(
    evidence: Evidence, volume: VolumeRecord, disk: DiskRecord, *, oma_vm_id: str, order: int
) -> VolumePlan:
    facts = evidence.get_facts(volume.volume_id)
    test_vm = find_test_vm(evidence)
    place = place_of(facts, oma_vm_id, test_vm.id if test_vm else None)
    if not isinstance(facts.cloud, CloudVolume):
        raise TypeError("a plan is built only after the guards have passed")
    need = revert_need(evidence, facts, place)
    snapshot = choose_snapshot(evidence, facts.cloud).snapshot if need.needed else None
    return VolumePlan(
        volume_id=volume.volume_id,
        name=volume.volume_name or facts.cloud.name,
        size_bytes=facts.cloud.size_bytes,
        disk_id=disk.disk_id,
        order=order,
        place=place,
        vm_id=facts.cloud.vm_id,
        device_id=facts.cloud.device_id,
        is_root=facts.cloud.is_root,
        mapping=_mapping_words(facts.mapping),
        on_oma=facts.on_oma is True,
        snapshot_id=snapshot.id if snapshot else None,
        needs_revert=need.needed,
        revert_reason=need.reason,
        awaits_copy=need.awaits_copy,
    )


def _disk_order(disk: DiskRecord) -> tuple[bool, int, str]:
    """The system disk first, then by unit number."""
    return (not disk.is_system_disk, disk.unit_number if disk.unit_number is not None else 1 << 16, disk.disk_id)


def _mapping_words(mapping: Mapping | Unanswered | None) -> str:
    if mapping is None:
        return "detached"
    if isinstance(mapping, Unanswered):
        return "unknown"
    return f"{mapping.operation_mode} at {mapping.device_path}"


def _plan_actions(
    volumes: tuple[VolumePlan, ...],
    oma_vm_id: str,
    test_vm: TestVmPlan | None,
    tracked: dict[str, list[str]],
    *,
    ends: Sequence[PlannedAction],
) -> tuple[PlannedAction, ...]:
    awaiting = [volume.name for volume in volumes if volume.awaits_copy]
    actions = build_own_marking(tuple(one.volume_id for one in volumes), _worked_on(volumes, tracked))
    if test_vm is not None and test_vm.state == "Running" and not test_vm.kept:
        actions.append(
            PlannedAction(
                Phase.DETACH,
                ActionKind.STOP_VM,
                Target(vm_id=test_vm.vm_id),
                f"Stop the test VM {test_vm.name}, unforced.",
            )
        )
    actions += ends
    actions += [_detach(volume, test_vm) for volume in volumes if will_be_detached(volume)]
    actions += [_revert(volume) for volume in volumes if volume.needs_revert]
    actions += [
        PlannedAction(
            Phase.SNAPSHOTS,
            ActionKind.DELETE_SNAPSHOT,
            Target(volume_id=volume.volume_id, volume_name=volume.name, snapshot_id=snapshot_id),
            f"Keep snapshot {snapshot_id} of {volume.name}; it goes only after a completed replication."
            if awaiting
            else f"Delete snapshot {snapshot_id} of {volume.name} once every revert is proven.",
        )
        for volume in volumes
        for snapshot_id in tracked.get(volume.volume_id, [])
    ]
    actions += [
        PlannedAction(
            Phase.REATTACH,
            ActionKind.ATTACH_VOLUME,
            Target(volume_id=volume.volume_id, volume_name=volume.name, vm_id=oma_vm_id),
            f"Attach {volume.name} to the OMA.",
        )
        for volume in volumes
        if will_be_detached(volume) or volume.place is VolumePlace.DETACHED or volume.awaits_copy
    ]
    if test_vm is not None and test_vm.state in ("Running", "Stopped") and not test_vm.kept:
        actions.append(
            PlannedAction(
                Phase.RESET,
                ActionKind.DESTROY_VM,
                Target(vm_id=test_vm.vm_id),
                f"Destroy the leftover test VM {test_vm.name}; it is never expunged.",
            )
        )
    status = f"{FAILED}: a full copy of {' and '.join(awaiting)} is awaited" if awaiting else READY_FOR_FAILOVER
    actions.append(PlannedAction(Phase.RESET, ActionKind.RESET_RECORDS, Target(), f"Reset the records to {status}."))
    marked = Target(volume_ids=tuple(one.volume_id for one in volumes))
    actions.append(build_unmarking(Phase.RESET, marked, "Take the marker off again; nobody waits for it."))
    return tuple(actions)


def _worked_on(volumes: tuple[VolumePlan, ...], tracked: dict[str, list[str]]) -> tuple[str, ...]:
    """The snapshots that the run reverts to or deletes."""
    ids = [
        each
        for volume in volumes
        for each in (volume.snapshot_id if volume.needs_revert else None, *tracked.get(volume.volume_id, []))
        if each
    ]
    return tuple(dict.fromkeys(ids))


def _leftover_marks(evidence: Evidence) -> tuple[Mark, ...]:
    """Markers of ours whose run has ended; any other one was refused by its guard."""
    marks = () if isinstance(evidence.marks, Unanswered) else evidence.marks
    return tuple(one for one in marks if one.job_id in evidence.records.ended_job_ids)


def will_be_detached(volume: VolumePlan) -> bool:
    """It hangs on the test VM, or on the OMA and has to be reverted (a revert wants it free).

    One that is copied whole stays on the OMA where that shows its device; attached again, it gets mapping and export.
    """
    leaves_the_oma = volume.needs_revert or (volume.awaits_copy and not volume.on_oma)
    return volume.place is VolumePlace.ON_TEST_VM or (volume.place is VolumePlace.ON_OMA and leaves_the_oma)


def _detach(volume: VolumePlan, test_vm: TestVmPlan | None) -> PlannedAction:
    vm = f"the VM {test_vm.name} of the live failover" if test_vm is not None and test_vm.kept else "the test VM"
    return PlannedAction(
        Phase.DETACH,
        ActionKind.DETACH_VOLUME,
        Target(volume_id=volume.volume_id, volume_name=volume.name, vm_id=volume.vm_id),
        f"Detach {volume.name} from {'the OMA' if volume.place is VolumePlace.ON_OMA else vm}.",
    )


def _revert(volume: VolumePlan) -> PlannedAction:
    return PlannedAction(
        Phase.SNAPSHOTS,
        ActionKind.REVERT_SNAPSHOT,
        Target(volume_id=volume.volume_id, volume_name=volume.name, snapshot_id=volume.snapshot_id),
        f"Revert {volume.name} to snapshot {volume.snapshot_id}: {volume.revert_reason}.",
    )


def _observations(evidence: Evidence, volumes: tuple[VolumePlan, ...], test_vm: TestVmPlan | None) -> tuple[str, ...]:
    lines: list[str] = []
    lines += observed_life(evidence)
    lines += observed_vms(evidence, test_vm)
    for volume in volumes:
        root = " as its root disk" if volume.is_root else ""
        lines.append(
            f"{volume.name} ({volume.disk_id}) is {volume.place.value}{root}; the Volume Daemon says {volume.mapping}; "
            f"it {revert_words(evidence, volume)}: {volume.revert_reason}."
        )
    lines += snapshot_observations(evidence, volumes)
    return tuple(lines)


def _risks(volumes: tuple[VolumePlan, ...], *, powered_off: bool) -> tuple[str, ...]:
    risks: list[str] = []
    if powered_off:
        risks.append(SOURCE_OFF)
    risks += [
        f"{volume.name} goes home as it is; don't fail over before a replication has copied it whole."
        for volume in volumes
        if volume.awaits_copy
    ]
    reverts = sum(volume.needs_revert for volume in volumes)
    if reverts:
        risks.append(
            f"{reverts} volume{'s lose' if reverts > 1 else ' loses'} everything written since the snapshot; from the "
            "first revert on the way is forward only."
        )
    return tuple(risks)
