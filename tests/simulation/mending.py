"""What an administrator mends by hand in CloudStack and on the OMA, and when there is nothing left to mend."""

from __future__ import annotations

from database.tables import replication_jobs
from oma.domain.jobs import Job
from oma.domain.states import JobState
from ossea.simulator.model import seeding
from ossea.simulator.model.entities import Phase, Volume, VolumeState
from tests.fakes.scenario import BrokenVm
from tests.simulation.scene import Scene

STUCK_SNAPSHOT = "Destroying"
BETWEEN = frozenset({"Stopping", "Starting", "Error", "Unknown"})
"""States in which a VM stays when the server forgot what it was doing."""


def mend(scene: Scene, vm: BrokenVm) -> None:
    """Devices are let go of, holders ended, VM snapshots removed; what no job will ever move on is set right.

    What CloudStack still works at is left alone.
    """
    scene.machine.let_go(vm.volume_ids)
    world = scene.world.model.world
    for row in world.vm_snapshots.rows.values():
        row.removed = row.removed or scene.clock.unix()
    scene.world.advance()
    if any(job.phase != Phase.ENDED for job in world.jobs.rows.values()):
        return
    for volume_id in vm.volume_ids:
        volume = world.live_volume(volume_id)
        if volume is not None:
            _mend_volume(scene, volume)
        else:
            _let_go_of_lost(scene, world.volumes.rows[volume_id])
    for snapshot_id in vm.snapshot_ids:
        snapshot = world.live_snapshot(snapshot_id)
        if snapshot is not None and snapshot.state == STUCK_SNAPSHOT:
            scene.world.change_snapshot(snapshot_id, state="BackedUp")
    _mend_test_vm(scene, vm)


def _mend_volume(scene: Scene, volume: Volume) -> None:
    seeding.release_device(scene.world.model.world, volume)
    if volume.state != VolumeState.READY:
        scene.world.change_volume(volume.id, state=VolumeState.READY.value)
    if volume.vm_id is not None and volume.device_on != volume.vm_id:
        # The hypervisor has detached it and CloudStack was not told: both are brought to agree.
        scene.world.change_volume(volume.id, vm_id=volume.vm_id)


def _let_go_of_lost(scene: Scene, volume: Volume) -> None:
    """CloudStack no longer knows it, and a guest may still have its device."""
    world = scene.world.model.world
    world.detach(volume)
    seeding.release_device(world, volume)
    scene.world.advance()


def _mend_test_vm(scene: Scene, vm: BrokenVm) -> None:
    """A VM in no state is looked after; a destroyed one that took a volume with it is recovered."""
    world = scene.world.model.world
    row = world.live_vm(vm.test_vm_id)
    if row is None:
        return
    holds = any(volume.id in vm.volume_ids for volume in world.volumes_on(row.id))
    if row.state in BETWEEN or (row.state == "Destroyed" and holds):
        scene.world.change_vm(row.id, state="Stopped")


def why_not_clean(scene: Scene, vm: BrokenVm, job: Job | None) -> str | None:
    """What keeps this VM from being cleaned up whatever anybody says; None: nothing does."""
    if job is not None and job.state in (JobState.COMPLETED, JobState.PARKED):
        # Whatever the cause of a park is: there is a word that lets the run go on.
        return None
    world = scene.world.model.world
    gone = [volume_id for volume_id in vm.volume_ids if world.live_volume(volume_id) is None]
    if gone:
        return f"{len(gone)} volumes are gone"
    if len(scene.read(replication_jobs, vm_context_id=vm.context_id)) > 1:
        return "it was replicated since its snapshots"
    lost = [snapshot_id for snapshot_id in vm.snapshot_ids if world.live_snapshot(snapshot_id) is None]
    if lost and scene.restored:
        return "its snapshots were deleted by a run that a restored database does not know"
    return None
