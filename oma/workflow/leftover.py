"""Which VM a failover left behind, how it is known, and where a volume is, seen from the OMA and that VM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from oma.domain.evidence import Evidence
from oma.domain.plan import TestVmPlan
from oma.domain.records import FailoverRecord
from oma.domain.states import VolumePlace
from oma.domain.world import CloudVm, Unanswered, VolumeFacts
from oma.workflow.doubt import earliest
from oma.workflow.vm_history import was_started
from oma.workflow.vm_names import is_of_longer_name, read_time_stamp

STAMP_TOLERANCE: Final = timedelta(seconds=120)
"""How far a test VM's time stamp may be from the failover's `created_at`: the name is made before or after the row."""
CREATION_STEP: Final = "vm-creation"


@dataclass(frozen=True, slots=True)
class Leftover:
    """`kept`: it is emptied and left, because a live failover's VM is never destroyed."""

    vm: CloudVm
    known_by: str
    kept: bool = False


def find_leftover(evidence: Evidence) -> Leftover | None:
    """The VM that volumes may be taken off; None where there is none, or none that is known for certain.

    By the newest failover's `destination_vm_id`, or by the name of a test VM that was never recorded. A live
    failover's VM only where a person named it (`words.destination_vm_id`) and it was never started.
    """
    live = _emptied_live_vm(evidence)
    if live is not None:
        return live
    newest = evidence.records.newest_failover
    if newest is None or newest.job_type != "test":
        return None
    if newest.destination_vm_id:
        vm = _not_the_oma(evidence, newest.destination_vm_id)
        return Leftover(vm, f"destination_vm_id of the failover {newest.job_id}") if vm is not None else None
    certain = [vm for vm in _of_its_time(evidence, newest) if not name_doubts(evidence, vm)]
    if len(certain) != 1 or len(list(_of_its_time(evidence, newest))) != 1:
        return None
    known_by = f"its name, which carries the time stamp of the failover {newest.job_id}; it was never started"
    return Leftover(certain[0], known_by)


def find_test_vm(evidence: Evidence) -> CloudVm | None:
    """The leftover as CloudStack lists it, gone or not."""
    leftover = find_leftover(evidence)
    return leftover.vm if leftover else None


def build_test_vm_plan(evidence: Evidence) -> TestVmPlan | None:
    """What the plan says about a leftover VM; one that is gone already needs nothing."""
    leftover = find_leftover(evidence)
    if leftover is None or leftover.vm.is_gone:
        return None
    vm = leftover.vm
    return TestVmPlan(vm_id=vm.id, name=vm.name, state=vm.state, known_by=leftover.known_by, kept=leftover.kept)


def left_alone(evidence: Evidence) -> tuple[str, ...]:
    """A sentence about every VM that may be a failover's leftover, and why this run does not touch it."""
    return (*_doubtful_by_name(evidence), *_older_test_vms(evidence))


def unrecorded_vms(evidence: Evidence) -> tuple[str, ...]:
    """A sentence about every open failover that may have created a VM of which no record and no name is known."""
    found = find_leftover(evidence)
    sentences = []
    for failover in evidence.records.failovers:
        log = evidence.records.joblog_of(failover)
        reached = log is not None and CREATION_STEP in log.step_names
        if not (failover.is_open and reached) or (failover is evidence.records.newest_failover and found is not None):
            continue
        if failover.destination_vm_id and evidence.find_vm(failover.destination_vm_id) is not None:
            continue
        kind = "live" if failover.job_type != "test" else "test"
        if failover.destination_vm_id:
            what = f"recorded the VM {failover.destination_vm_id}, which CloudStack no longer lists"
        elif isinstance(evidence.named_vms, Unanswered):
            why = evidence.named_vms.reason
            what = f"may have created a VM that it never recorded; CloudStack did not say which VMs there are: {why}"
        else:
            what = "may have created a VM that it never recorded"
        sentences.append(f"The {kind} failover {failover.job_id} reached {CREATION_STEP} and {what}.")
    return tuple(sentences)


def name_doubts(evidence: Evidence, vm: CloudVm) -> list[str]:
    """Why a VM with a test VM's name is not certain to be a leftover that may be destroyed; empty: it is certain."""
    doubts: list[str] = []
    if vm.state != "Stopped":
        doubts.append(f"it is {vm.state}, not Stopped")
    if vm.pending_job_id is not None:
        doubts.append(f"CloudStack job {vm.pending_job_id} is under way on it")
    start = was_started(vm, evidence.find_history(vm.id))
    if start.started and vm.state == "Stopped":
        doubts.append(start.sentence)
    doubts += _doubts_whose_it_is(evidence, vm)
    contents = evidence.find_contents(vm.id)
    if contents is None or isinstance(contents.volumes, Unanswered):
        doubts.append("what hangs on it can't be told")
        return doubts
    ours = {volume.volume_id for volume in evidence.records.volumes}
    held = [volume for volume in contents.volumes if volume.id in ours or not volume.is_root]
    if held or len(contents.volumes) > 1:
        names = ", ".join(volume.name for volume in held or contents.volumes)
        doubts.append(f"it holds more than a root disk of its own: {names}")
    return doubts


def place_of(facts: VolumeFacts, oma_vm_id: str | None, test_vm_id: str | None) -> VolumePlace:
    """CloudStack's word on where the volume is; the Volume Daemon's alone proves nothing."""
    volume = facts.cloud
    if isinstance(volume, Unanswered):
        return VolumePlace.UNKNOWN
    if volume is None:
        return VolumePlace.MISSING
    if not volume.is_settled:
        return VolumePlace.BUSY
    if volume.vm_id is None:
        return VolumePlace.DETACHED
    if volume.vm_id == oma_vm_id:
        return VolumePlace.ON_OMA
    if volume.vm_id == test_vm_id:
        return VolumePlace.ON_TEST_VM
    return VolumePlace.ON_FOREIGN_VM


def never_started_vm(evidence: Evidence, failover: FailoverRecord) -> CloudVm | None:
    """The failover's recorded VM, where it is certain that it was never started."""
    vm = _not_the_oma(evidence, failover.destination_vm_id)
    if vm is None or was_started(vm, evidence.find_history(vm.id)).started:
        return None
    return vm


def _emptied_live_vm(evidence: Evidence) -> Leftover | None:
    words = evidence.words
    if not words.force or words.destination_vm_id is None:
        return None
    for failover in evidence.records.failovers:
        if failover.job_type == "test" or failover.destination_vm_id != words.destination_vm_id:
            continue
        vm = never_started_vm(evidence, failover)
        if vm is not None:
            known_by = (
                f"destination_vm_id of the live failover {failover.job_id}, named by a person; it was never started"
            )
            return Leftover(vm, known_by, kept=True)
    return None


def _not_the_oma(evidence: Evidence, vm_id: str | None) -> CloudVm | None:
    if vm_id is None or (evidence.config is not None and vm_id == evidence.config.oma_vm_id):
        return None
    return evidence.find_vm(vm_id)


def _of_its_time(evidence: Evidence, failover: FailoverRecord) -> Iterator[CloudVm]:
    """VMs that are there, named as this failover would name its test VM, with its own time stamp."""
    if isinstance(evidence.named_vms, Unanswered) or not failover.is_open or failover.created_at is None:
        return
    meanings = {failover.created_at, earliest(evidence.records, failover.created_at)}
    for vm in evidence.named_vms:
        stamp = read_time_stamp(evidence.records.context.vm_name, vm.name)
        if stamp is None or vm.is_gone:
            continue
        if any(abs(stamp - at.timestamp()) <= STAMP_TOLERANCE.total_seconds() for at in meanings if at.year > 1):
            yield vm


def _doubts_whose_it_is(evidence: Evidence, vm: CloudVm) -> Iterator[str]:
    """Names sanitise alike, and two VMs may be failed over within the time that a stamp may be off."""
    newest = evidence.records.newest_failover
    log = evidence.records.joblog_of(newest) if newest is not None else None
    if newest is not None and log is not None and CREATION_STEP not in log.step_names:
        yield f"the failover {newest.job_id} never reached {CREATION_STEP}"
    for rival in evidence.records.rivals:
        if read_time_stamp(rival.vm_name, vm.name) is None:
            continue
        if rival.destination_vm_id is None or rival.destination_vm_id == vm.id:
            yield f"it may be of a failover of {rival.vm_name}, whose test VM has the same name"
            return


def _doubtful_by_name(evidence: Evidence) -> Iterator[str]:
    if isinstance(evidence.named_vms, Unanswered):
        return
    taken = find_test_vm(evidence)
    recorded = {failover.destination_vm_id for failover in evidence.records.failovers}
    newest = evidence.records.newest_failover
    of_its_time = [vm.id for vm in _of_its_time(evidence, newest)] if newest and not newest.destination_vm_id else []
    for vm in evidence.named_vms:
        if vm.is_gone or vm.id in recorded or (taken is not None and vm.id == taken.id):
            continue
        if is_of_longer_name(evidence.records.context.vm_name, vm.name):
            continue
        doubts = name_doubts(evidence, vm) if vm.id in of_its_time else ["its name carries no time stamp of a failover"]
        if not doubts:
            doubts = [f"{len(of_its_time)} VMs carry the time stamp of this failover"]
        yield (
            f"The VM {vm.name} ({vm.id}) is {vm.state} and may be left over from a test failover; it was left alone: "
            f"{'; '.join(doubts)}. Look at it in CloudStack and remove it there if nobody needs it."
        )


def _older_test_vms(evidence: Evidence) -> Iterator[str]:
    taken = find_test_vm(evidence)
    for failover in evidence.records.failovers[1:]:
        vm = _not_the_oma(evidence, failover.destination_vm_id)
        if not failover.is_open or failover.job_type != "test" or vm is None or vm.is_gone or vm == taken:
            continue
        yield (
            f"The VM {vm.name} ({vm.id}) of the older failover {failover.job_id} is {vm.state} and was left alone; "
            "remove it in CloudStack if nobody needs it."
        )
