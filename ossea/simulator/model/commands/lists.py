"""listVolumes, listSnapshots, listVirtualMachines, listVMSnapshot, listTags and listEvents: newest first, by index."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ossea.simulator.model.commands.base import SyncCommand, known_row
from ossea.simulator.model.entities import Event, Snapshot, Tag, Vm, VmSnapshot, VmState, Volume
from ossea.simulator.model.errors import invalid_entity, refused
from ossea.simulator.model.listing import page_json
from ossea.simulator.model.ownership import visible
from ossea.simulator.model.params import Params
from ossea.simulator.model.views import event_json, snapshot_json, tag_json, vm_json, vm_snapshot_json, volume_json
from ossea.simulator.model.world import Table, World

_PAGING = ("page", "pagesize", "listall", "keyword", "account", "domainid", "isrecursive", "projectid")


class ListVolumes(SyncCommand):
    name = "listVolumes"
    optional = (*_PAGING, "id", "ids", "virtualmachineid", "name", "type", "state", "zoneid", "tags", "hostid")

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        rows = _volumes(world, params)
        for name in ("name", "type", "state"):
            rows = _equal(rows, name, params)
        zone = params.find("zoneid")
        if zone is not None:
            rows = [volume for volume in rows if volume.zone_id == zone.lower()]
        rows = visible(world, _by_tags(world, _like(rows, params.find("keyword")), params), params)
        return page_json("volume", rows, params, world.settings, lambda volume: volume_json(world, volume))


def _volumes(world: World, params: Params) -> Iterable[Volume]:
    vm = known_row(world.vms, params, "virtualmachineid") if params.find("virtualmachineid") else None
    chosen = _chosen(world, world.volumes, params)
    if chosen is not None:
        return [volume for volume in chosen if volume.removed is None and (vm is None or volume.vm_id == vm.id)]
    if vm is not None:
        return sorted(world.volumes_on(vm.id), key=lambda volume: -volume.created)
    return [volume for volume in world.volumes.newest_first() if volume.removed is None]


class ListSnapshots(SyncCommand):
    """`name` is LIKE."""

    name = "listSnapshots"
    optional = (*_PAGING, "id", "ids", "volumeid", "name", "intervaltype", "snapshottype", "zoneid", "tags")

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        rows = _like(_like(_snapshots(world, params), params.find("name")), params.find("keyword"))
        rows = visible(world, _by_tags(world, rows, params), params)
        return page_json("snapshot", rows, params, world.settings, lambda row: snapshot_json(world, row))


def _snapshots(world: World, params: Params) -> Iterable[Snapshot]:
    volume = known_row(world.volumes, params, "volumeid") if params.find("volumeid") else None
    chosen = _chosen(world, world.snapshots, params)
    if chosen is not None:
        return [row for row in chosen if row.removed is None and (volume is None or row.volume_id == volume.id)]
    if volume is not None:
        return list(reversed(world.snapshots_of(volume.id)))
    return [row for row in world.snapshots.newest_first() if row.removed is None]


class ListVirtualMachines(SyncCommand):
    name = "listVirtualMachines"
    optional = (*_PAGING, "id", "ids", "name", "state", "zoneid", "hostid", "tags", "details")

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        chosen = _chosen(world, world.vms, params)
        rows: Iterable[Vm] = world.vms.newest_first() if chosen is None else chosen
        rows = [vm for vm in rows if vm.removed is None]
        state = params.find("state")
        if state is not None:
            rows = [vm for vm in rows if vm.state == state or (state == "Present" and vm.state != VmState.DESTROYED)]
        host = params.find("hostid")
        if host is not None:
            rows = [vm for vm in rows if vm.host_id == host.lower()]
        rows = _by_tags(world, _like(_like(rows, params.find("name")), params.find("keyword")), params)
        rows = visible(world, rows, params)
        return page_json("virtualmachine", rows, params, world.settings, lambda vm: vm_json(world, vm))


class ListVmSnapshot(SyncCommand):
    name = "listVMSnapshot"
    optional = (*_PAGING, "vmsnapshotid", "vmsnapshotids", "virtualmachineid", "name", "state")

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        if params.find("virtualmachineid"):
            vm = known_row(world.vms, params, "virtualmachineid")
            found: Iterable[VmSnapshot] = world.vm_snapshots_of(vm.id)
        else:
            found = [row for row in world.vm_snapshots.newest_first() if row.removed is None]
        rows: Iterable[VmSnapshot] = visible(world, found, params)
        wanted = params.ids("vmsnapshotid") + params.ids("vmsnapshotids")
        for row_id in wanted:
            if world.vm_snapshots.find(row_id.lower()) is None:
                raise invalid_entity(self.name, "vmsnapshotid", row_id)
        if wanted:
            rows = [row for row in rows if row.id in {row_id.lower() for row_id in wanted}]
        rows = _equal(rows, "state", params)
        return page_json("vmSnapshot", list(rows), params, world.settings, lambda row: vm_snapshot_json(world, row))


class ListTags(SyncCommand):
    name = "listTags"
    optional = (*_PAGING, "key", "value", "resourcetype", "resourceid")

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        resource = params.find("resourceid")
        rows: Iterable[Tag] = list(world.tags.newest_first()) if resource is None else world.tags_of(resource.lower())
        rows = _equal(_equal(visible(world, rows, params), "key", params), "value", params)
        kind = params.find("resourcetype")
        if kind is not None:
            rows = [tag for tag in rows if tag.resource_type.lower() == kind.lower()]
        return page_json("tag", list(rows), params, world.settings, lambda tag: tag_json(world, tag))


class ListEvents(SyncCommand):
    """Newest first. Old servers ignore `resourceid` and list everybody's events (setting `event_resource`)."""

    name = "listEvents"
    optional = (*_PAGING, "id", "type", "level", "startdate", "enddate", "resourceid", "resourcetype")

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        resource = params.find("resourceid") if world.settings.event_resource else None
        if resource is not None and params.find("resourcetype") is None:
            raise refused("resourceid parameter must be used with resourcetype parameter")
        rows: Iterable[Event] = world.events.newest_first()
        if resource is not None:
            rows = world.events_of(resource.lower())
        for name in ("id", "type", "level"):
            rows = _equal(rows, name, params)
        found = sorted(visible(world, rows, params), key=lambda event: -event.created)
        return page_json("event", found, params, world.settings, lambda event: event_json(world, event))


def _chosen(world: World, table: Table[Any], params: Params) -> list[Any] | None:
    """The rows that `id` or `ids` names; an unknown id is a parameter error, a removed one passes."""
    single = params.find("id")
    many = params.ids("ids") if world.settings.ids_parameter else []
    if single is not None and many:
        raise refused("Specify either id or ids but not both parameters")
    if single is None and not many:
        return None
    found = []
    for row_id in dict.fromkeys([single] if single is not None else many):
        row = table.find(row_id.lower())
        if row is None:
            raise invalid_entity(params.command, "id" if single is not None else "ids", row_id)
        found.append(row)
    return found


def _equal(rows: Iterable[Any], name: str, params: Params) -> Iterable[Any]:
    value = params.find(name)
    return rows if value is None else [row for row in rows if getattr(row, name) == value]


def _like(rows: Iterable[Any], part: str | None) -> Iterable[Any]:
    return rows if part is None else [row for row in rows if part.lower() in row.name.lower()]


def _by_tags(world: World, rows: Iterable[Any], params: Params) -> Iterable[Any]:
    """Rows that carry any of the tags asked for; without a value the key alone counts."""
    wanted = params.rows("tags")
    if not wanted:
        return rows
    return [
        row
        for row in rows
        if any(
            tag.key == want.get("key") and want.get("value") in {None, "", tag.value}
            for tag in world.tags_of(row.id)
            for want in wanted
        )
    ]
