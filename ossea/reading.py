"""The commands that change nothing, typed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from ossea.errors import CloudStackError, ErrorKind
from ossea.models import (
    DiskOffering,
    Event,
    Host,
    JobResult,
    JobStatus,
    MalformedEntity,
    Snapshot,
    Tag,
    VirtualMachine,
    VmSnapshot,
    Volume,
    Zone,
)
from ossea.paging import Item, Pager
from ossea.transport import Transport

T = TypeVar("T")

IDS_PER_CALL: Final = 100
"""Ids asked for in one request: the address stays under 8 kB, which servers and proxies allow."""

FEW_VMS: Final = 1
"""VMs whose snapshots are asked for one by one; of more, all VM snapshots are listed at once."""

_EVERYWHERE: Final = {"listall": True}
_OWNERS: Final = ("virtualmachineid", "volumeid", "resourceid")
_IN_PROJECTS: Final = {"projectid": "-1"}
"""Every project of the caller. Without it `listall` leaves projects out; with it some versions leave out an ordinary
account's own (`AccountManagerImpl.buildACLSearchParameters`): what is not listed without is asked for with it.
"""


class Reader:
    """Lists and queries over one transport."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._pager = Pager(transport.read)
        self._sweeper = Pager(transport.look)

    async def list_volumes(self, ids: Sequence[str] | None, vm_id: str | None) -> list[Volume]:
        where = {**_EVERYWHERE, "virtualmachineid": vm_id}
        return _parse("listVolumes", Volume.parse, await self._list("listVolumes", "volume", where, ids))

    async def list_snapshots(
        self, ids: Sequence[str] | None, volume_id: str | None, name: str | None = None
    ) -> list[Snapshot]:
        if name is not None:
            found = await self._list_everywhere("listSnapshots", "snapshot", {"name": name}, _entity_key)
            return _parse("listSnapshots", Snapshot.parse, found)
        where = {**_EVERYWHERE, "volumeid": volume_id}
        return _parse("listSnapshots", Snapshot.parse, await self._list("listSnapshots", "snapshot", where, ids))

    async def list_vms(self, ids: Sequence[str] | None, name: str | None = None) -> list[VirtualMachine]:
        if name is None:
            items = await self._list("listVirtualMachines", "virtualmachine", _EVERYWHERE, ids)
        else:
            items = await self._list_everywhere("listVirtualMachines", "virtualmachine", {"name": name}, _entity_key)
        return _parse("listVirtualMachines", VirtualMachine.parse, items)

    async def list_events(self, resource_id: str, resource_type: str = "VirtualMachine") -> list[Event]:
        where = {**_EVERYWHERE, "resourceid": resource_id, "resourcetype": resource_type}
        return _parse("listEvents", Event.parse, await self._list("listEvents", "event", where, None))

    async def list_vm_snapshots(self, vm_ids: Sequence[str]) -> list[VmSnapshot]:
        """`listVMSnapshot` takes one VM at a time, or none for all of them; an unknown VM has none."""
        if len(vm_ids) > FEW_VMS:
            items = await self._list_everywhere("listVMSnapshot", "vmSnapshot", {}, _entity_key)
            return _parse(
                "listVMSnapshot", VmSnapshot.parse, [one for one in items if one.get("virtualmachineid") in vm_ids]
            )
        found = await asyncio.gather(*(self._list_vm_snapshots(vm_id) for vm_id in dict.fromkeys(vm_ids)))
        return [snapshot for of_vm in found for snapshot in of_vm]

    async def _list_vm_snapshots(self, vm_id: str) -> list[VmSnapshot]:
        where = {**_EVERYWHERE, "virtualmachineid": vm_id}
        try:
            items = await self._list("listVMSnapshot", "vmSnapshot", where, None)
        except CloudStackError as error:
            if error.entity_unknown:
                return []
            raise
        return _parse("listVMSnapshot", VmSnapshot.parse, items)

    async def list_tags(self, resource_type: str | None, resource_id: str | None, key: str | None) -> list[Tag]:
        where = {"resourcetype": resource_type, "resourceid": resource_id, "key": key}
        items = await self._list_everywhere("listTags", "tag", where, _tag_key)
        return _parse("listTags", Tag.parse, items)

    async def list_hosts(self, host_id: str) -> list[Host]:
        return _parse("listHosts", Host.parse, await self._list("listHosts", "host", {"id": host_id}, None))

    async def list_zones(self) -> list[Zone]:
        return _parse("listZones", Zone.parse, await self._list("listZones", "zone", {}, None))

    async def list_disk_offerings(self) -> list[DiskOffering]:
        items = await self._list("listDiskOfferings", "diskoffering", _EVERYWHERE, None)
        return _parse("listDiskOfferings", DiskOffering.parse, items)

    async def list_capabilities(self) -> Mapping[str, object]:
        """Past whoever waits for a throttle, since by this it is known whether the server answers at all."""
        try:
            answer = await self._transport.look("listCapabilities", {})
        except CloudStackError as error:
            if error.kind not in (ErrorKind.THROTTLED, ErrorKind.UNAUTHORIZED):
                raise
            answer = await self._transport.read("listCapabilities", {})
        capability = answer.get("capability")
        if not isinstance(capability, Mapping):
            raise CloudStackError(ErrorKind.BROKEN_ANSWER, "listCapabilities", "no capability in the answer")
        return capability

    async def query_job(self, job_id: str) -> JobResult:
        """An id that CloudStack does not know is `ABSENT`."""
        return await self._query(self._transport.read, job_id)

    async def look_at_job(self, job_id: str) -> JobResult:
        """`query_job` for the poller."""
        return await self._query(self._transport.look, job_id)

    async def sweep_jobs(self) -> list[JobResult]:
        """All of this account's jobs that the server lists: of the last 24 h, on newer servers pending ones only."""
        items = await self._sweeper.list_all("listAsyncJobs", "asyncjobs", {}, _job_key, whole=False)
        return _parse("listAsyncJobs", JobResult.parse, items)

    async def _query(self, ask: Callable[[str, Mapping[str, Any]], Any], job_id: str) -> JobResult:
        command = "queryAsyncJobResult"
        try:
            answer = await ask(command, {"jobid": job_id})
        except CloudStackError as error:
            if error.entity_unknown:
                return JobResult(job_id, JobStatus.ABSENT, errortext=error.text)
            raise
        return _parse(command, lambda item: JobResult.parse(item, job_id), [answer])[0]

    async def _list(self, command: str, array: str, where: Mapping[str, Any], ids: Sequence[str] | None) -> list[Item]:
        if ids is None:
            items = await self._pager.list_all(command, array, where, _entity_key)
            # A VM's volumes or events, or a volume's snapshots, have one owner: all are in a project, or none is.
            if items or not any(where.get(owner) for owner in _OWNERS):
                return items
            return await self._pager.list_all(command, array, {**where, **_IN_PROJECTS}, _entity_key)
        unique = list(dict.fromkeys(ids))
        chunks = [unique[start : start + IDS_PER_CALL] for start in range(0, len(unique), IDS_PER_CALL)]
        found = await asyncio.gather(*(self._list_ids(command, array, where, chunk) for chunk in chunks))
        return [item for items in found for item in items]

    async def _list_everywhere(
        self, command: str, array: str, where: Mapping[str, Any], key: Callable[[Item], str]
    ) -> list[Item]:
        """A list that has no owner: the accounts' own and, beside it, what lies in projects."""
        found = await asyncio.gather(
            self._pager.list_all(command, array, {**_EVERYWHERE, **where}, key),
            self._pager.list_all(command, array, {**_EVERYWHERE, **_IN_PROJECTS, **where}, key),
        )
        return list({key(item): item for items in found for item in items}.values())

    async def _list_ids(self, command: str, array: str, where: Mapping[str, Any], ids: Sequence[str]) -> list[Item]:
        """Those of the ids that exist. CloudStack rejects a whole list for one unknown id (`ParamProcessWorker`), so
        that a rejected list is halved until the unknown ones stand alone.
        """
        chosen = {"id": ids[0]} if len(ids) == 1 else {"ids": ",".join(ids)}
        try:
            items = await self._pager.list_all(command, array, {**where, **chosen}, _entity_key)
        except CloudStackError as error:
            if not error.entity_unknown:
                raise
            if len(ids) == 1:
                return []
            middle = len(ids) // 2
            halves = (ids[:middle], ids[middle:])
            found = await asyncio.gather(*(self._list_ids(command, array, where, half) for half in halves))
            return [item for half in found for item in half]
        # A server that does not know `ids`, or takes an empty id for none, lists everything.
        wanted = {one.lower() for one in ids}
        listed = [item for item in items if _entity_key(item).lower() in wanted]
        missing = wanted - {_entity_key(item).lower() for item in listed}
        if missing:
            others = await self._pager.list_all(command, array, {**where, **chosen, **_IN_PROJECTS}, _entity_key)
            listed += [item for item in others if _entity_key(item).lower() in missing]
        return listed


def _parse(command: str, parse: Callable[[Item], T], items: Sequence[Item]) -> list[T]:
    try:
        return [parse(item) for item in items]
    except MalformedEntity as error:
        raise CloudStackError(ErrorKind.BROKEN_ANSWER, command, f"the answer holds {error}") from None


def _entity_key(item: Item) -> str:
    return _text(item, "id")


def _job_key(item: Item) -> str:
    return _text(item, "jobid")


def _tag_key(item: Item) -> str:
    """A tag has no id of its own: its resource and key are unique together (`resource_tags`)."""
    return "\n".join((_text(item, "resourcetype"), _text(item, "resourceid"), _text(item, "key")))


def _text(item: Item, key: str) -> str:
    return str(item.get(key, ""))
