"""The rules that decide whether anything may be done: one function each, from evidence to named reasons.

The table at the end holds them in the order in which their codes take precedence. A guard whose evidence is missing
refuses in its own place as `state_unknown`; nothing that cannot be judged is let through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.records import CLEANUP_REQUIRED, FailoverRecord, VolumeRecord
from oma.domain.states import VolumePlace
from oma.domain.world import CloudVolume, Unanswered, VolumeFacts
from oma.workflow.identity import oma_problem
from oma.workflow.leftover import find_test_vm, place_of
from oma.workflow.life import failover_life
from oma.workflow.needs import tracked_snapshots
from oma.workflow.revert_need import revert_need
from oma.workflow.snapshot_rules import choose_snapshot, replications_since

Guard = Callable[[Evidence], Iterator[Refusal]]
PASSING_VM_STATES: Final = frozenset({"Starting", "Stopping", "Migrating"})
GIVING_VM_STATES: Final = frozenset({"Running", "Stopped", "Destroyed", "Expunging"})
INJECTION_STEP: Final = "virtio-driver-injection"
LISTING_ADVICE: Final = "Look the volume up in CloudStack and correct the record before anything is cleaned."


def judge(evidence: Evidence) -> tuple[Refusal, ...]:
    """Every reason that speaks against a clean-up, in order of precedence; empty means that it may begin."""
    return tuple(refusal for guard in GUARDS for refusal in guard(evidence))


def live_failover(evidence: Evidence) -> Iterator[Refusal]:
    """A live failover is never undone: what this version cannot tell (was its VM ever started?) counts as started.

    The newest one counts, and any older one that never ended: a reset would end it as failed.
    """
    newest = evidence.records.newest_failover
    for failover in evidence.records.failovers:
        if failover.job_type == "test" or not (failover is newest or failover.is_open):
            continue
        which = "newest" if failover is newest else "open"
        words = f"({failover.job_id}, {failover.status or 'no status'})"
        yield Refusal(
            Code.LIVE_FAILOVER,
            f"The {which} failover of {_name(evidence)} is a live failover {words}.",
            "Leave it alone: people may work on the VM that it made. Nothing was touched.",
            _failover_evidence(evidence, failover),
        )


def test_failover_active(evidence: Evidence) -> Iterator[Refusal]:
    """A finished test failover is not a failure: somebody may be using its VM."""
    newest = evidence.records.newest_failover
    if newest is None or newest.job_type != "test":
        return
    if not failover_life(evidence.records, newest, evidence.observed_at, evidence.limits).finished:
        return
    vm = evidence.find_vm(newest.destination_vm_id)
    if vm is None or vm.is_gone:
        return
    yield Refusal(
        Code.TEST_FAILOVER_ACTIVE,
        f"The test failover {newest.job_id} finished and its VM {vm.name} is {vm.state}.",
        "End the drill with the ordinary rollback; this is not a failed run.",
        {**_failover_evidence(evidence, newest), "vm_state": vm.state},
    )


def operation_in_progress(evidence: Evidence) -> Iterator[Refusal]:
    """A failover, rollback or replication that is alive, or that cannot be told to be dead."""
    for failover in evidence.records.failovers:
        if not failover.is_open:
            continue
        life = failover_life(evidence.records, failover, evidence.observed_at, evidence.limits)
        if life.alive:
            yield Refusal(
                Code.OPERATION_IN_PROGRESS,
                life.sentence,
                f"Wait for it to end or to stay silent for {evidence.limits.alive_s:.0f} s, then ask again.",
                _failover_evidence(evidence, failover),
            )
    yield from _open_replications(evidence)


def _open_replications(evidence: Evidence) -> Iterator[Refusal]:
    for replication in evidence.records.replications:
        if not replication.is_open:
            continue
        touched = replication.last_touched_at
        known = {"replication_id": replication.id, "status": replication.status}
        if touched is not None and (evidence.observed_at - touched).total_seconds() < evidence.limits.alive_s:
            yield Refusal(
                Code.OPERATION_IN_PROGRESS,
                f"Replication {replication.id} is {replication.status} and was touched at {touched.isoformat()}.",
                "Wait for the replication to end, then ask again.",
                known,
            )
        else:
            yield Refusal(
                Code.STATE_UNKNOWN,
                f"Replication {replication.id} is recorded as {replication.status}; whether its writer is still "
                "connected to the disk can't be told.",
                "Make sure that no replication of this VM runs and end its replication_jobs row, then ask again.",
                known,
            )


def answers_are_complete(evidence: Evidence) -> Iterator[Refusal]:
    """No answer is never "no": who did not answer is named."""
    for unanswered in evidence.unanswered:
        yield Refusal(
            Code.STATE_UNKNOWN,
            f"{unanswered.asked} did not say {unanswered.question}: {unanswered.reason}.",
            f"See that {unanswered.asked} answers (oma doctor), then ask again. Nothing was touched.",
            unanswered.as_json(),
        )


def records_are_whole(evidence: Evidence) -> Iterator[Refusal]:
    """Every disk has one volume row and the reverse, and no other VM claims a volume."""
    records = evidence.records
    problems: list[str] = []
    if not records.disks:
        problems.append(f"{_name(evidence)} has no row in vm_disks; a VM has at least one disk.")
    rows = {volume.id for volume in records.volumes}
    referred = [disk.ossea_volume_id for disk in records.disks]
    problems += [
        f"Disk {disk.disk_id} has no volume row." for disk in records.disks if disk.ossea_volume_id not in rows
    ]
    problems += [
        f"Volume {volume.volume_name} ({volume.volume_id}) belongs to {referred.count(volume.id)} disks."
        for volume in records.volumes
        if referred.count(volume.id) != 1
    ]
    volume_ids = [volume.volume_id for volume in records.volumes]
    problems += [f"Volume {one} has two rows." for one in sorted(set(volume_ids)) if volume_ids.count(one) > 1]
    disk_ids = [disk.disk_id for disk in records.disks]
    problems += [f"Disk id {one} stands twice." for one in sorted(set(disk_ids)) if disk_ids.count(one) > 1]
    problems += [f"Volume {one} is claimed by another VM's records too." for one in records.shared_volume_ids]
    for problem in problems:
        yield Refusal(Code.STATE_UNKNOWN, problem, LISTING_ADVICE, {"context_id": records.context.context_id})


def oma_is_proven(evidence: Evidence) -> Iterator[Refusal]:
    """Nothing is attached to a VM that is not proven to be this appliance."""
    if any(isinstance(side, Unanswered) for side in (evidence.devices, evidence.volumes_on_oma)):
        return
    if evidence.config is not None and _asked_in_vain(evidence, "the VMs"):
        return
    problem = oma_problem(evidence)
    if problem is not None:
        yield Refusal(
            Code.STATE_UNKNOWN,
            problem,
            "Correct the configuration (ossea_configs.oma_vm_id) or the setting oma.identity, then ask again.",
            {"oma_vm_id": evidence.config.oma_vm_id if evidence.config else None},
        )


def volumes_are_ours(evidence: Evidence) -> Iterator[Refusal]:
    """Every volume is listed, and hangs on the OMA, on this failover's own test VM, or nowhere."""
    for volume, facts, place in _places(evidence):
        known = {"volume_id": volume.volume_id, "volume_name": volume.volume_name}
        if place is VolumePlace.MISSING:
            yield Refusal(
                Code.STATE_UNKNOWN,
                f"Alarm: CloudStack no longer lists the volume {volume.volume_name} ({volume.volume_id}).",
                "Look for it among the removed volumes before anything else; CloudStack may have removed it after a "
                "server restart, and an expunge would destroy it.",
                known,
            )
        elif place is VolumePlace.ON_FOREIGN_VM and isinstance(facts.cloud, CloudVolume):
            yield Refusal(
                Code.VOLUME_ON_FOREIGN_VM,
                f"{volume.volume_name} hangs on {facts.cloud.vm_name or facts.cloud.vm_id}, which is neither the OMA "
                "nor this failover's test VM.",
                "Find out why it is there; detach it yourself if that VM must not have it. Nothing was touched.",
                {**known, "vm_id": facts.cloud.vm_id, "vm_name": facts.cloud.vm_name},
            )


def device_agrees(evidence: Evidence) -> Iterator[Refusal]:
    """Detached means detached everywhere: CloudStack and the OMA must tell the same story."""
    for volume, facts, place in _places(evidence):
        if place in (VolumePlace.DETACHED, VolumePlace.ON_TEST_VM) and facts.on_oma is True:
            yield Refusal(
                Code.STATE_UNKNOWN,
                f"CloudStack shows {volume.volume_name} as {place.value}, but the OMA still shows its device.",
                "Something may still hold it open. Look at the device on the OMA before anything is reverted.",
                {"volume_id": volume.volume_id},
            )


def injection_is_over(evidence: Evidence) -> Iterator[Refusal]:
    """Whether an injection still holds the disk is not judged yet, so one that was left running stops everything."""
    for failover in evidence.records.failovers:
        log = evidence.records.joblog_of(failover)
        if not failover.is_open or log is None or INJECTION_STEP not in log.running_step_names:
            continue
        if any(place is VolumePlace.ON_OMA for _, _, place in _places(evidence)):
            yield Refusal(
                Code.STATE_UNKNOWN,
                f"The driver injection of failover {failover.job_id} never reported its end; whether it still holds a "
                "disk on the OMA can't be told.",
                "Look for inject-virtio-drivers.sh and virt-v2v on the OMA, end them, and end the job_steps row.",
                _failover_evidence(evidence, failover),
            )


def volumes_are_settled(evidence: Evidence) -> Iterator[Refusal]:
    """Nothing is being done to a volume or to the test VM right now."""
    for volume, facts, place in _places(evidence):
        if place is VolumePlace.BUSY and isinstance(facts.cloud, CloudVolume):
            doing = f"job {facts.cloud.pending_job_id}" if facts.cloud.pending_job_id else facts.cloud.state
            yield Refusal(
                Code.VOLUME_BUSY,
                f"{volume.volume_name} is in transition ({doing}).",
                "Wait until CloudStack has finished with it, then ask again.",
                {"volume_id": volume.volume_id, "state": facts.cloud.state, "job_id": facts.cloud.pending_job_id},
            )
    vm = find_test_vm(evidence)
    if vm is not None and vm.state in PASSING_VM_STATES:
        yield Refusal(
            Code.VOLUME_BUSY,
            f"The test VM {vm.name} is {vm.state}, neither Running nor Stopped.",
            "Wait until CloudStack has finished with it, then ask again.",
            {"vm_id": vm.id, "state": vm.state},
        )


def test_vm_gives_back(evidence: Evidence) -> Iterator[Refusal]:
    """A root volume can be detached only from a stopped VM; one on a destroyed VM dies with it at the expunge.

    One that could not be built (`Error`), or whose state CloudStack itself does not know, is never seen `Stopped`, so
    that nothing is detached from it and nothing reverted beside it; where neither is needed it is left as it is.
    """
    vm = find_test_vm(evidence)
    if vm is None:
        return
    held = [facts.cloud for _, facts, _ in _places(evidence) if isinstance(facts.cloud, CloudVolume)]
    in_the_way = any(True for _ in _to_revert(evidence)) or any(volume.vm_id == vm.id for volume in held)
    if vm.state not in PASSING_VM_STATES | GIVING_VM_STATES and in_the_way:
        yield Refusal(
            Code.STATE_UNKNOWN,
            f"The test VM {vm.name} is {vm.state}; whether it can still write to a volume can't be told.",
            "See what hangs on it, bring it to Stopped or destroy it in CloudStack, never with expunge, then ask "
            f"again: cs listVolumes virtualmachineid={vm.id} listall=true",
            {"vm_id": vm.id, "vm_state": vm.state},
        )
    for volume in held:
        if volume.vm_id == vm.id and vm.is_gone and volume.is_root:
            yield Refusal(
                Code.STATE_UNKNOWN,
                f"Critical: {volume.name} is the root volume of {vm.name}, which is {vm.state}; "
                "an expunge destroys it.",
                f"Recover the VM at once: cs recoverVirtualMachine id={vm.id}",
                {"volume_id": volume.id, "vm_id": vm.id, "vm_state": vm.state},
            )


def snapshots_are_there(evidence: Evidence) -> Iterator[Refusal]:
    """Each volume that needs a revert has a snapshot that CloudStack lists."""
    for volume, cloud in _to_revert(evidence):
        choice = choose_snapshot(evidence, cloud)
        if choice.missing:
            dead = f" CloudStack no longer lists {', '.join(choice.dead)}." if choice.dead else ""
            yield Refusal(
                Code.SNAPSHOT_MISSING,
                f"{volume.volume_name} needs a revert and has no usable snapshot.{dead}",
                "Look for its snapshot in CloudStack; without one the replica has to be copied again from the source.",
                choice.evidence,
            )


def snapshots_fit(evidence: Evidence) -> Iterator[Refusal]:
    """Exactly one tracked snapshot of each volume passes every check."""
    for _, cloud in _to_revert(evidence):
        choice = choose_snapshot(evidence, cloud)
        if not choice.missing and choice.snapshot is None:
            yield Refusal(
                Code.SNAPSHOT_MISMATCH,
                " ".join(choice.problems),
                "Compare both sides; a revert to the wrong snapshot would overwrite the disk. Nothing was touched.",
                choice.evidence,
            )


def not_replicated_since(evidence: Evidence) -> Iterator[Refusal]:
    """A revert behind a later replication would leave the disk older than its change id says."""
    for volume, cloud in _to_revert(evidence):
        snapshot = choose_snapshot(evidence, cloud).snapshot
        if snapshot is None or snapshot.created is None:
            continue
        for sentence in replications_since(evidence.records, snapshot.created):
            yield Refusal(
                Code.REPLICATED_SINCE_SNAPSHOT,
                f"{volume.volume_name}: {sentence}",
                "Don't revert: the next increment would corrupt the disk silently. Plan a full copy from the source.",
                {"volume_id": volume.volume_id, "snapshot_id": snapshot.id, "created": snapshot.created.isoformat()},
            )


def something_to_clean(evidence: Evidence) -> Iterator[Refusal]:
    """There must be a reason to act at all."""
    newest = evidence.records.newest_failover
    reasons = (
        newest is not None and newest.is_open,
        bool(tracked_snapshots(evidence.records)),
        any(not is_home(facts, place) for _, facts, place in _places(evidence)),
        evidence.records.context.current_status == CLEANUP_REQUIRED,
    )
    if not any(reasons):
        yield Refusal(
            Code.NOTHING_TO_CLEAN,
            f"{_name(evidence)} has no open failover, no tracked snapshot, and every volume is home on the OMA.",
            "Nothing has to be done.",
            {"status": evidence.records.context.current_status},
        )


def is_home(facts: VolumeFacts, place: VolumePlace) -> bool:
    """On the OMA, as CloudStack and the OMA itself see it."""
    return place is VolumePlace.ON_OMA and facts.on_oma is True


def _places(evidence: Evidence) -> Iterator[tuple[VolumeRecord, VolumeFacts, VolumePlace]]:
    test_vm = find_test_vm(evidence)
    oma_vm_id = evidence.config.oma_vm_id if evidence.config else None
    for volume in evidence.records.volumes:
        facts = evidence.get_facts(volume.volume_id)
        yield volume, facts, place_of(facts, oma_vm_id, test_vm.id if test_vm else None)


def _to_revert(evidence: Evidence) -> Iterator[tuple[VolumeRecord, CloudVolume]]:
    """Volumes that need a revert and are well enough known for their snapshot to be judged."""
    if _asked_in_vain(evidence, "the tracked snapshots"):
        return
    for volume, facts, place in _places(evidence):
        if isinstance(facts.cloud, CloudVolume) and revert_need(evidence, facts, place).needed:
            yield volume, facts.cloud


def _asked_in_vain(evidence: Evidence, question: str) -> bool:
    return any(unanswered.question == question for unanswered in evidence.unanswered)


def _name(evidence: Evidence) -> str:
    return evidence.records.context.vm_name


def _failover_evidence(evidence: Evidence, failover: FailoverRecord) -> dict[str, object]:
    life = failover_life(evidence.records, failover, evidence.observed_at, evidence.limits)
    return {
        "failover_job_id": failover.job_id,
        "job_type": failover.job_type,
        "status": failover.status,
        "destination_vm_id": failover.destination_vm_id,
        "life": life.sentence,
    }


GUARDS: Final[tuple[Guard, ...]] = (
    live_failover,
    test_failover_active,
    operation_in_progress,
    answers_are_complete,
    records_are_whole,
    oma_is_proven,
    volumes_are_ours,
    test_vm_gives_back,
    device_agrees,
    injection_is_over,
    volumes_are_settled,
    snapshots_are_there,
    snapshots_fit,
    not_replicated_since,
    something_to_clean,
)
