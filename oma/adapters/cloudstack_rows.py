"""CloudStack's rows as values of ours."""

from __future__ import annotations

from collections.abc import Iterable

from oma.domain.world import CloudSnapshot, CloudVm, CloudVolume, Mark, Marked
from ossea.models import Snapshot, Tag, VirtualMachine, Volume


def build_marks(tags: Iterable[Tag]) -> list[Mark]:
    """Of volumes and snapshots; what somebody else tags so means nothing to us."""
    known = {what.value: what for what in Marked}
    return [Mark(tag.resource_id, tag.value, known[tag.resource_type]) for tag in tags if tag.resource_type in known]


def build_volume(volume: Volume) -> CloudVolume:
    return CloudVolume(
        id=volume.id,
        name=volume.name,
        state=volume.state,
        size_bytes=volume.size_bytes,
        type=volume.type,
        vm_id=volume.vm_id,
        vm_name=volume.vm_name,
        vm_state=volume.vm_state,
        device_id=volume.device_id,
        pending_job_id=volume.pending_job_id,
        attached_at=volume.attached,
    )


def build_snapshot(snapshot: Snapshot) -> CloudSnapshot:
    return CloudSnapshot(
        id=snapshot.id,
        volume_id=snapshot.volume_id,
        name=snapshot.name,
        state=snapshot.state,
        created=snapshot.created,
        size_bytes=snapshot.size_bytes,
        revertable=snapshot.revertable,
        pending_job_id=snapshot.job_id,
    )


def build_vm(vm: VirtualMachine) -> CloudVm:
    return CloudVm(
        id=vm.id,
        name=vm.name,
        state=vm.state,
        display_name=vm.display_name,
        created=vm.created,
        pending_job_id=vm.job_id,
    )
