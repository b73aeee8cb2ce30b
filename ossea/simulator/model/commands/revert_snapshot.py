"""revertSnapshot: `SnapshotManagerImpl.revertSnapshot`, which on KVM overwrites the volume in place; newer servers put
a new file in its place (setting `revert_mode`).

It takes only the snapshot's id and does not look at the snapshot's state. The volume goes Ready again however it ends,
and success sets its size to the snapshot's.
"""

from __future__ import annotations

from typing import Any

from ossea.simulator.model.commands.base import AsyncCommand, Order, named_snapshot
from ossea.simulator.model.effects import ContentReverted, Effect, RevertStarted
from ossea.simulator.model.entities import Job, Snapshot, VmState, Volume, VolumeState
from ossea.simulator.model.errors import INTERNAL, ApiError, failed, refused
from ossea.simulator.model.faults import FaultKind
from ossea.simulator.model.params import Params
from ossea.simulator.model.views import snapshot_json
from ossea.simulator.model.world import World


class RevertSnapshot(AsyncCommand):
    name = "revertSnapshot"
    java_class = "org.apache.cloudstack.api.command.user.snapshot.RevertSnapshotCmd"
    instance_type = "Snapshot"
    event = "SNAPSHOT.REVERT"
    required = ("id",)

    def accept(self, world: World, params: Params) -> Order:
        return Order(named_snapshot(world, params).id)

    def check(self, world: World, job: Job) -> str | None:
        snapshot = world.live_snapshot(job.instance_id or "")
        if snapshot is None:
            raise refused("No such snapshot")
        volume = world.live_volume(snapshot.volume_id)
        if volume is None:
            raise failed("Failed to revert snapshot")
        if volume.state != VolumeState.READY:
            raise refused("The volume is not in Ready state.")
        if volume.vm_id is not None:
            job.params["idle"] = _check_holder(world, volume)
        if not snapshot.has_content:
            raise failed(f"snapshot:{snapshot.id} not exist in data store")
        if volume.format != "QCOW2" or not snapshot.revertable:
            raise ApiError(INTERNAL, "Failed to revert snapshot")
        return None

    def begin(self, world: World, job: Job) -> None:
        snapshot, volume = _both(world, job)
        volume.state = VolumeState.REVERT_SNAPSHOTTING
        if world.settings.revert_mode == "replace" and _fraction(job) > 0.0:
            job.params["replaces"] = True
            volume.file_number += 1
        world.volumes.touch(volume)
        world.effects.append(_started(world, job, snapshot))

    def apply(self, world: World, job: Job) -> None:
        if not job.params.get("idle"):
            snapshot, _ = _both(world, job)
            world.effects.append(_reverted(world, job, snapshot.size_bytes))

    def apply_broken(self, world: World, job: Job) -> None:
        _, volume = _both(world, job)
        world.effects.append(_reverted(world, job, volume.size_bytes))

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        snapshot, volume = _both(world, job)
        volume.size_bytes = snapshot.size_bytes
        self.undo(world, job)
        return {"snapshot": snapshot_json(world, snapshot)}

    def undo(self, world: World, job: Job) -> None:
        _, volume = _both(world, job)
        if volume.state == VolumeState.REVERT_SNAPSHOTTING:
            volume.state = VolumeState.READY
        world.volumes.touch(volume)

    def tells_end(self, job: Job) -> bool:
        """CloudStack logs only that it was scheduled."""
        del job
        return False

    def again(self, world: World, job: Job) -> list[Effect]:
        snapshot, _ = _both(world, job)
        return [_started(world, job, snapshot)]


def _started(world: World, job: Job, snapshot: Snapshot) -> RevertStarted:
    ends_at = world.now if job.works_until is None else job.works_until
    replaces = bool(job.params.get("replaces"))
    return RevertStarted(world.now, job.id, snapshot.id, snapshot.volume_id, ends_at, _fraction(job), replaces)


def _reverted(world: World, job: Job, size_bytes: int) -> ContentReverted:
    snapshot, volume = _both(world, job)
    replaces = bool(job.params.get("replaces"))
    return ContentReverted(world.now, job.id, snapshot.id, volume.id, size_bytes, _fraction(job), replaces)


def _both(world: World, job: Job) -> tuple[Snapshot, Volume]:
    snapshot = world.snapshots.rows[job.instance_id or ""]
    return snapshot, world.volumes.rows[snapshot.volume_id]


def _fraction(job: Job) -> float:
    """How much of the content the hypervisor puts back."""
    fault = job.fault or {}
    if fault.get("kind") == FaultKind.JOB_NO_EFFECT or job.params.get("idle"):
        return 0.0
    return float(fault["fraction"]) if fault.get("kind") == FaultKind.JOB_FAIL else 1.0


def _check_holder(world: World, volume: Volume) -> bool:
    """Whether the revert will succeed without doing anything, under a VM that runs (apache/cloudstack#4356)."""
    vm = world.live_vm(volume.vm_id or "")
    idle = vm is not None and vm.state == VmState.RUNNING and world.settings.revert_under_running_vm == "no_effect"
    if vm is None or (vm.state != VmState.STOPPED and not idle):
        raise refused("The VM the specified disk is attached to is not in the shutdown state.")
    if world.vm_snapshots_of(vm.id):
        raise refused("Unable to revert snapshot for VM, please remove VM snapshots before reverting VM from snapshot")
    return idle
