"""createVolume (the row by the call, the disk by the job) and deleteVolume, which is synchronous."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

from ossea.simulator.model.catalog import DISK_OFFERING_ID, DISK_OFFERINGS, ZONES
from ossea.simulator.model.commands.base import AsyncCommand, Order, SyncCommand, named_snapshot, named_volume
from ossea.simulator.model.effects import Effect, VolumeCreated
from ossea.simulator.model.entities import Job, Snapshot, Volume, VolumeState
from ossea.simulator.model.errors import failed, invalid_entity, refused
from ossea.simulator.model.params import Params
from ossea.simulator.model.views import volume_json
from ossea.simulator.model.world import World

GIBIBYTE = 1 << 30
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class CreateVolume(AsyncCommand):
    name = "createVolume"
    java_class = "org.apache.cloudstack.api.command.admin.volume.CreateVolumeCmdByAdmin"
    instance_type = "Volume"
    event = "VOLUME.CREATE"
    optional = ("name", "zoneid", "diskofferingid", "size", "snapshotid", "customid", "displayvolume")

    def accept(self, world: World, params: Params) -> Order:
        snapshot = named_snapshot(world, params, "snapshotid") if params.find("snapshotid") else None
        offering = _offering(params)
        if snapshot is None and offering is None:
            raise refused("Either disk Offering Id or snapshot Id must be passed whilst creating volume")
        volume = Volume(
            id=find_custom_id(params, world.volumes.rows) or world.new_id(),
            name=params.find("name") or f"DATA-{world.new_id()}",
            size_bytes=_size(params, snapshot, offering),
            state=VolumeState.ALLOCATED,
            zone_id=_zone(params, world, snapshot),
            disk_offering_id=DISK_OFFERING_ID if offering is None else str(offering["id"]),
            created=world.now,
        )
        world.add_volume(volume)
        notes = {"snapshot": None if snapshot is None else snapshot.id}
        return Order(volume.id, notes, {"id": volume.id})

    def check(self, world: World, job: Job) -> str | None:
        snapshot_id = job.params["snapshot"]
        if snapshot_id is not None:
            snapshot = world.live_snapshot(snapshot_id)
            if snapshot is None or not snapshot.has_content:
                raise failed("Failed to create a volume from its snapshot")
        return None

    def begin(self, world: World, job: Job) -> None:
        volume = world.volumes.rows[job.instance_id or ""]
        if job.params["snapshot"] is not None:
            volume.state = VolumeState.CREATING
            world.volumes.touch(volume)
        world.effects.extend(self.again(world, job))

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        volume = world.volumes.rows[job.instance_id or ""]
        if volume.state == VolumeState.CREATING:
            volume.state = VolumeState.READY
        world.volumes.touch(volume)
        return {"volume": volume_json(world, volume)}

    def undo(self, world: World, job: Job) -> None:
        volume = world.volumes.rows[job.instance_id or ""]
        world.erase_volume(volume)

    def again(self, world: World, job: Job) -> list[Effect]:
        volume = world.volumes.rows[job.instance_id or ""]
        return [VolumeCreated(world.now, job.id, volume.id, volume.size_bytes, job.params["snapshot"])]


class DeleteVolume(SyncCommand):
    """`VolumeApiServiceImpl.deleteVolume`."""

    name = "deleteVolume"
    required = ("id",)

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        volume = named_volume(world, params)
        if volume.removed is not None:
            raise refused(f"Unable to find volume with ID: {volume.id}")
        if volume.vm_id is not None:
            raise refused("Please specify a volume that is not attached to any VM.")
        if volume.state not in {VolumeState.ALLOCATED, VolumeState.READY, VolumeState.UPLOADED}:
            raise refused(f"The volume is in {volume.state} state and can not be deleted")
        world.erase_volume(volume)
        world.log_event("VOLUME.DELETE", "Completed", f"Successfully completed deleting volume {volume.id}")
        return {"success": "true"}


def find_custom_id(params: Params, taken: Container[str]) -> str | None:
    """`customid` of create commands, by the rules of `UUIDManagerImpl.checkUuid`."""
    value = params.find("customid")
    if value is None:
        return None
    if not _UUID.fullmatch(value):
        raise refused(f"UUID: {value} format is incorrect")
    if value in taken:
        raise refused(f"UUID: {value} already exists so can't create with custom id")
    return value


def _offering(params: Params) -> dict[str, Any] | None:
    value = params.find("diskofferingid")
    if value is None:
        return None
    offering = next((row for row in DISK_OFFERINGS if row["id"] == value.lower()), None)
    if offering is None:
        raise invalid_entity(params.command, "diskofferingid", value)
    return offering


def _zone(params: Params, world: World, snapshot: Snapshot | None) -> str:
    value = params.find("zoneid")
    if value is None:
        if snapshot is not None:
            return world.volumes.rows[snapshot.volume_id].zone_id
        raise refused("Missing zoneid parameter; it must be given for a volume that does not come from a snapshot")
    if all(zone["id"] != value.lower() for zone in ZONES):
        raise invalid_entity(params.command, "zoneid", value)
    return value.lower()


def _size(params: Params, snapshot: Snapshot | None, offering: dict[str, Any] | None) -> int:
    size_gb = params.find_int("size")
    if size_gb is not None:
        if size_gb <= 0:
            raise refused("Please specify a size of at least 1 GB.")
        return size_gb * GIBIBYTE
    if snapshot is not None:
        return snapshot.size_bytes
    if offering is not None and offering["disksize"]:
        return int(offering["disksize"]) * GIBIBYTE
    raise refused("This disk offering requires a custom size specified")
