"""createSnapshot: the row is allocated by the call, the content taken by the job."""

from __future__ import annotations

from typing import Any

from ossea.simulator.model.commands.base import AsyncCommand, Order, named_volume
from ossea.simulator.model.effects import CopyStarted, Effect
from ossea.simulator.model.entities import Job, Snapshot, SnapshotState, VolumeState
from ossea.simulator.model.errors import failed, refused
from ossea.simulator.model.params import Params
from ossea.simulator.model.views import snapshot_json, stamp
from ossea.simulator.model.world import World


class CreateSnapshot(AsyncCommand):
    name = "createSnapshot"
    java_class = "org.apache.cloudstack.api.command.user.snapshot.CreateSnapshotCmd"
    instance_type = "Snapshot"
    event = "SNAPSHOT.CREATE"
    required = ("volumeid",)
    optional = ("name", "policyid", "quiescevm", "asyncbackup", "locationtype")

    def accept(self, world: World, params: Params) -> Order:
        volume = named_volume(world, params, "volumeid")
        if volume.removed is not None:
            raise refused(f"Creating snapshot failed due to volume:{volume.id} doesn't exist")
        if volume.state != VolumeState.READY:
            raise refused(f"VolumeId: {volume.id} is not in Ready state but {volume.state}. Cannot take snapshot.")
        name = params.find("name") or f"{volume.name}_{stamp(world.now)[:19].replace('-', '').replace('T', '')}"
        snapshot = Snapshot(world.new_id(), volume.id, name, SnapshotState.ALLOCATED, world.now, volume.size_bytes)
        world.add_snapshot(snapshot)
        return Order(snapshot.id, {"volume": volume.id}, {"id": snapshot.id})

    def check(self, world: World, job: Job) -> str | None:
        volume = world.live_volume(job.params["volume"])
        if volume is None:
            _is_in_error(world, job)
            raise refused(f"Creating snapshot failed due to volume:{job.params['volume']} doesn't exist")
        return volume.vm_id

    def begin(self, world: World, job: Job) -> None:
        volume = world.live_volume(job.params["volume"])
        if volume is None or volume.state != VolumeState.READY:
            _is_in_error(world, job)
            raise failed(f"Failed to create snapshot for volume {job.params['volume']}: it is not Ready any more")
        snapshot = world.snapshots.rows[job.instance_id or ""]
        volume.state = VolumeState.SNAPSHOTTING
        snapshot.state = SnapshotState.CREATING
        snapshot.size_bytes = volume.size_bytes
        world.volumes.touch(volume)
        world.snapshots.touch(snapshot)
        world.effects.append(CopyStarted(world.now, job.id, snapshot.id, volume.id))

    def apply(self, world: World, job: Job) -> None:
        snapshot = world.snapshots.rows[job.instance_id or ""]
        snapshot.state = SnapshotState.BACKING_UP
        snapshot.has_content = True
        world.snapshots.touch(snapshot)

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        snapshot = world.snapshots.rows[job.instance_id or ""]
        snapshot.state = SnapshotState.BACKED_UP
        world.snapshots.touch(snapshot)
        _volume_is_ready_again(world, job)
        return {"snapshot": snapshot_json(world, snapshot)}

    def undo(self, world: World, job: Job) -> None:
        _is_in_error(world, job)
        _volume_is_ready_again(world, job)

    def again(self, world: World, job: Job) -> list[Effect]:
        return [CopyStarted(world.now, job.id, job.instance_id or "", job.params["volume"])]


def _volume_is_ready_again(world: World, job: Job) -> None:
    volume = world.volumes.rows[job.params["volume"]]
    if volume.state == VolumeState.SNAPSHOTTING:
        volume.state = VolumeState.READY
    world.volumes.touch(volume)


def _is_in_error(world: World, job: Job) -> None:
    snapshot = world.snapshots.rows[job.instance_id or ""]
    snapshot.state = SnapshotState.ERROR
    snapshot.has_content = False
    world.snapshots.touch(snapshot)
