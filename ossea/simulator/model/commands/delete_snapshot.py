"""deleteSnapshot: `SnapshotManagerImpl.deleteSnapshot` and the strategy's check of the state."""

from __future__ import annotations

from typing import Any

from ossea.simulator.model.commands.base import AsyncCommand, Order, named_snapshot
from ossea.simulator.model.effects import SnapshotErased
from ossea.simulator.model.entities import Job, SnapshotState
from ossea.simulator.model.errors import refused
from ossea.simulator.model.params import Params
from ossea.simulator.model.tagging import drop_tags_of
from ossea.simulator.model.world import World

_DELETABLE = frozenset(
    {SnapshotState.ALLOCATED, SnapshotState.ERROR, SnapshotState.BACKED_UP, SnapshotState.DESTROYING}
)


class DeleteSnapshot(AsyncCommand):
    name = "deleteSnapshot"
    java_class = "org.apache.cloudstack.api.command.user.snapshot.DeleteSnapshotCmd"
    instance_type = "Snapshot"
    event = "SNAPSHOT.DELETE"
    required = ("id",)

    def accept(self, world: World, params: Params) -> Order:
        return Order(named_snapshot(world, params).id)

    def check(self, world: World, job: Job) -> str | None:
        snapshot = world.live_snapshot(job.instance_id or "")
        if snapshot is None:
            raise refused(f"unable to find a snapshot with id {job.instance_id}")
        if snapshot.state == SnapshotState.DESTROYED:
            raise refused(f"Snapshot with id: {snapshot.id} is already destroyed")
        if snapshot.state not in _DELETABLE:
            raise refused(f"Can't delete snapshotshot {snapshot.id} due to it is in {snapshot.state} Status")
        return None

    def begin(self, world: World, job: Job) -> None:
        snapshot = world.snapshots.rows[job.instance_id or ""]
        job.params["was"] = snapshot.state
        snapshot.state = SnapshotState.DESTROYING
        world.snapshots.touch(snapshot)

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        snapshot = world.snapshots.rows[job.instance_id or ""]
        if snapshot.removed is None:
            snapshot.state = SnapshotState.DESTROYED
            snapshot.removed = world.now
            snapshot.has_content = False
            world.snapshots.touch(snapshot)
            drop_tags_of(world, snapshot.id)
            world.effects.append(SnapshotErased(world.now, None, snapshot.id))
        return {"success": True}

    def undo(self, world: World, job: Job) -> None:
        snapshot = world.snapshots.rows[job.instance_id or ""]
        if snapshot.removed is None:
            snapshot.state = job.params["was"]
            world.snapshots.touch(snapshot)
