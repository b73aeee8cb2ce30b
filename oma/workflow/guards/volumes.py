"""Guards about where the volumes are and what is being done to them, on CloudStack's side."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.issues import DESTROYED_VM_HOLDS_VOLUME
from oma.domain.states import VolumePlace
from oma.domain.world import CloudVm, CloudVolume
from oma.workflow.doubt import utc
from oma.workflow.guards.failovers import live_failover
from oma.workflow.guards.places import places, to_revert
from oma.workflow.leftover import find_test_vm
from oma.workflow.live import judged_live_failovers
from oma.workflow.revert_need import revert_need
from oma.workflow.vm_history import destroyed_at

EXPUNGE_DELAY: Final = timedelta(hours=24)
"""CloudStack's default of `expunge.delay`; a site may have set another."""
PASSING_VM_STATES: Final = frozenset({"Starting", "Stopping", "Migrating"})
GIVING_VM_STATES: Final = frozenset({"Running", "Stopped", "Destroyed", "Expunging"})


def volumes_are_ours(evidence: Evidence) -> Iterator[Refusal]:
    """Every volume is listed, and hangs on the OMA, on this failover's own test VM, or nowhere."""
    told_elsewhere = _vms_of_refused_live_failovers(evidence) | {vm.id for vm, _ in held_by_destroyed(evidence)}
    for volume, facts, place in places(evidence):
        known = {"volume_id": volume.volume_id, "volume_name": volume.volume_name}
        if isinstance(facts.cloud, CloudVolume) and facts.cloud.vm_id in told_elsewhere:
            continue
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


def _vms_of_refused_live_failovers(evidence: Evidence) -> frozenset[str | None]:
    """What hangs on such a VM is where its failover put it: the refusal of the failover says all."""
    if not any(True for _ in live_failover(evidence)):
        return frozenset()
    recorded = {failover.destination_vm_id for failover in judged_live_failovers(evidence.records)}
    return frozenset(recorded - {None, ""})


def test_vm_gives_back(evidence: Evidence) -> Iterator[Refusal]:
    """A volume is taken only off a VM that stands still.

    One that could not be built (`Error`), or whose state CloudStack itself does not know, is never seen `Stopped`, so
    that nothing is detached from it and nothing reverted beside it; where neither is needed it is left as it is.
    """
    vm = find_test_vm(evidence)
    if vm is None:
        return
    held = [facts.cloud for _, facts, _ in places(evidence) if isinstance(facts.cloud, CloudVolume)]
    in_doubt = any(revert_need(evidence, facts, place).awaits_copy for _, facts, place in places(evidence))
    to_write = in_doubt or any(True for _ in to_revert(evidence))
    in_the_way = to_write or any(volume.vm_id == vm.id for volume in held)
    if vm.state not in PASSING_VM_STATES | GIVING_VM_STATES and in_the_way:
        yield Refusal(
            Code.STATE_UNKNOWN,
            f"The test VM {vm.name} is {vm.state}; whether it can still write to a volume can't be told.",
            "See what hangs on it, bring it to Stopped or destroy it in CloudStack, never with expunge, then ask "
            f"again: cs listVolumes virtualmachineid={vm.id} listall=true",
            {"vm_id": vm.id, "vm_state": vm.state},
        )


def no_destroyed_vm_holds_one(evidence: Evidence) -> Iterator[Refusal]:
    """An expunge takes a VM's root disk with it; nothing is begun before a person has recovered the VM."""
    for vm, volume in held_by_destroyed(evidence):
        due = expunge_due(evidence, vm)
        yield Refusal(
            Code.STATE_UNKNOWN,
            f"Critical: {volume.name} hangs on {vm.name}, which is {vm.state}; an expunge may destroy it "
            f"{due_words(due)}.",
            f"Recover the VM at once: cs recoverVirtualMachine id={vm.id}",
            {
                "kind": DESTROYED_VM_HOLDS_VOLUME,
                "volume_id": volume.id,
                "volume_name": volume.name,
                "is_root": volume.is_root,
                "vm_id": vm.id,
                "vm_name": vm.name,
                "vm_state": vm.state,
                "expunge_due": utc(due) if due else None,
            },
        )


def held_by_destroyed(evidence: Evidence) -> Iterator[tuple[CloudVm, CloudVolume]]:
    """Every destroyed VM that still holds a volume of ours, as CloudStack shows it.

    An expunge doesn't ask who made the VM, nor whether any failover recorded it. Where the VM itself is not listed, as
    for accounts that may not see destroyed ones (`allow.user.view.destroyed.vm`), the volume's own line tells.
    """
    for facts in evidence.volumes:
        volume = facts.cloud
        if isinstance(volume, CloudVolume) and volume.vm_id is not None:
            vm = evidence.find_vm(volume.vm_id) or _as_the_volume_tells(volume.vm_id, volume)
            if vm.is_gone:
                yield vm, volume


def _as_the_volume_tells(vm_id: str, volume: CloudVolume) -> CloudVm:
    return CloudVm(vm_id, volume.vm_name or vm_id, volume.vm_state or "")


def expunge_due(evidence: Evidence, vm: CloudVm) -> datetime | None:
    """By CloudStack's default of `expunge.delay`; None where the hour of the destroy can't be told."""
    at = destroyed_at(evidence.find_history(vm.id))
    return at + EXPUNGE_DELAY if at is not None else None


def due_words(due: datetime | None) -> str:
    return f"at {utc(due)}" if due else "within 24 h of its destroy"


def volumes_are_settled(evidence: Evidence) -> Iterator[Refusal]:
    """Nothing is being done to a volume or to the test VM right now."""
    for volume, facts, place in places(evidence):
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
