"""Where volumes are, put together from the three sides: CloudStack, the OMA's devices, the mapping's row.

CloudStack decides whether a volume is attached and to what; not knowing is a 503 and never "detached".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ossea.errors import CloudStackError
from ossea.models import Volume
from volume_daemon.models import DeviceMapping, Devices, Operation
from volume_daemon.server.cloud import VolumeReader, pending_job
from volume_daemon.server.decisions import remote_path, unlocated_path
from volume_daemon.server.devices import DevicesUnknown, DeviceWatch, Seen, Sight, serial_in, serial_of
from volume_daemon.server.link import Clouds
from volume_daemon.server.operations import Operations
from volume_daemon.server.records import Filter, MappingRow
from volume_daemon.server.refusals import not_found, unknown
from volume_daemon.server.store import Store

CLOUDSTACK = "CloudStack"
OMA = "the OMA"
LINUX_STATES = {
    Sight.PRESENT: "detected",
    Sight.ABSENT: "missing",
    Sight.WRONG_SIZE: "size_mismatch",
    Sight.UNKNOWN: "unknown",
}


class Answers:
    """Reads only."""

    def __init__(
        self,
        *,
        cloud: Clouds,
        reader: VolumeReader,
        store: Store,
        devices: DeviceWatch,
        operations: Operations,
    ) -> None:
        self._cloud = cloud
        self._reader = reader
        self._store = store
        self._devices = devices
        self._operations = operations

    async def find_device(self, volume_id: str) -> DeviceMapping:
        """Raises `Problem`: 404 `volume_detached` only where it is known, else 503 `state_unknown`."""
        volume = await self._look_up(volume_id)
        if volume is None:
            raise unknown(f'CloudStack does not list the volume {volume_id}; that is not "detached".', CLOUDSTACK)
        if volume.vm_id is not None:
            return await self._mapping(volume)
        job_id = pending_job(volume)
        if job_id is not None:
            raise unknown(f"CloudStack's job {job_id} is at work on the detached volume {volume_id}.", CLOUDSTACK)
        seen = await self._devices.look(volume_id)
        if seen.sight is Sight.UNKNOWN:
            raise _unseen(seen)
        if seen.sight is not Sight.ABSENT:
            raise unknown(
                f"CloudStack shows the volume {volume_id} detached, but the OMA still shows {seen.link}.", OMA
            )
        raise not_found("volume_detached", f"CloudStack shows the volume {volume_id} attached to no VM.")

    async def describe_volume(self, volume_id: str) -> dict[str, Any]:
        """All three sides as they are, each with its own problem; 404 only where none knows the volume."""
        shown, problem = await self._try_look_up(volume_id)
        records = await self._store.read_volume(volume_id)
        seen = await self._devices.look(volume_id, shown.size_bytes if shown else 0)
        last = await self._operations.list(Filter(volume_id=volume_id, limit=1))
        if shown is None and problem is None and records.mapping is None and not last:
            raise not_found("volume_not_found", f"CloudStack does not list the volume {volume_id}.")
        return {
            "volume_id": volume_id,
            "cloudstack": _cloudstack(shown, problem),
            "linux": _linux(seen),
            "mapping": _row(records.mapping).as_json() if records.mapping else None,
            "exports": [{"name": one.name, "port": one.port, "status": one.status} for one in records.exports],
            "last_operation": last[0].as_json() if last else None,
        }

    async def list_vm_volumes(self, vm_id: str) -> list[DeviceMapping]:
        """What CloudStack shows on the VM. Raises `Problem` 503 `state_unknown`."""
        try:
            volumes = await self._cloud().list_volumes(vm_id=vm_id)
        except CloudStackError as error:
            raise _silent(error) from None
        rows = await self._store.list_mappings_of([volume.id for volume in volumes]) if volumes else {}
        omas = await self._store.read_oma_vm_ids_of([volume.id for volume in volumes])
        return [await self._merge(volume, rows.get(volume.id), omas[volume.id]) for volume in volumes]

    async def find_volume_at(self, path: str) -> DeviceMapping:
        """The volume behind a device path, link or link name. Raises `Problem` 404 `device_not_found`."""
        # In an address the path's own first slash is easily lost, and in the middle of one it is swallowed.
        for row in await self._store.list_mappings_at((path, f"/{path}")):
            return await self.find_device(row.volume_uuid)
        serial = await self._serial_at(path)
        if serial:
            for volume in await self._list_on_oma():
                if serial_of(volume.id) == serial:
                    return await self._mapping(volume)
        raise not_found("device_not_found", f"No volume is known at {path}.")

    async def scan_devices(self) -> Devices:
        """Raises `Problem` 503 `state_unknown` where they cannot be looked at."""
        try:
            return await self._devices.scan()
        except DevicesUnknown as error:
            raise unknown(f"The OMA's devices cannot be told: {error}.", OMA) from None

    async def _serial_at(self, path: str) -> str:
        scan = await self.scan_devices()
        names = {path, f"/{path}"}
        for link in scan.links:
            if names & {link.link, link.target or "", link.link.rpartition("/")[2]}:
                return link.serial
        return serial_in(path.rpartition("/")[2])

    async def _list_on_oma(self) -> Sequence[Volume]:
        volumes: list[Volume] = []
        for vm_id in sorted(await self._store.read_all_oma_vm_ids()):
            try:
                volumes += await self._cloud().list_volumes(vm_id=vm_id)
            except CloudStackError as error:
                raise _silent(error) from None
        return volumes

    async def _look_up(self, volume_id: str) -> Volume | None:
        try:
            return await self._reader.find(volume_id)
        except CloudStackError as error:
            raise _silent(error) from None

    async def _try_look_up(self, volume_id: str) -> tuple[Volume | None, str | None]:
        try:
            return await self._reader.find(volume_id), None
        except CloudStackError as error:
            return None, error.text

    async def _mapping(self, volume: Volume) -> DeviceMapping:
        rows = await self._store.list_mappings_of([volume.id])
        omas = await self._store.read_oma_vm_ids_of([volume.id])
        return await self._merge(volume, rows.get(volume.id), omas[volume.id])

    async def _merge(self, volume: Volume, row: MappingRow | None, oma_vm_ids: frozenset[str]) -> DeviceMapping:
        """CloudStack's VM, the OMA's device, and from the row what only it knows.

        The row's mode is kept even where CloudStack shows another VM: it is evidence of where the volume has been.
        """
        vm_id = volume.vm_id or ""
        is_oma = vm_id.lower() in oma_vm_ids
        path, linux_state, size = remote_path(vm_id, volume.id), "n/a", volume.size_bytes
        if is_oma:
            seen = await self._devices.look(volume.id, volume.size_bytes)
            if seen.sight is Sight.UNKNOWN:
                raise _unseen(seen)
            path = unlocated_path(volume.id) if seen.sight is Sight.ABSENT else str(seen.link)
            linux_state, size = LINUX_STATES[seen.sight], seen.size_bytes or volume.size_bytes
        elif row is not None and row.vm_id.lower() == vm_id.lower():
            path = row.device_path
        return DeviceMapping(
            id=row.id if row else None,
            volume_uuid=volume.id,
            vm_id=vm_id,
            vm_context_id=row.vm_context_id if row else None,
            operation_mode=row.operation_mode if row else ("oma" if is_oma else "failover"),
            device_path=path,
            cloudstack_device_id=volume.device_id,
            cloudstack_state="attached",
            linux_state=linux_state,
            size=size,
            last_sync=row.last_sync if row else None,
        )


def _silent(error: CloudStackError) -> Exception:
    return unknown(f"CloudStack does not tell where the volume is: {error.text}", CLOUDSTACK)


def _unseen(seen: Seen) -> Exception:
    return unknown(f"Whether the OMA shows the device cannot be told: {seen.problem}.", OMA)


def _row(row: MappingRow) -> DeviceMapping:
    return DeviceMapping(
        id=row.id,
        volume_uuid=row.volume_uuid,
        vm_id=row.vm_id,
        vm_context_id=row.vm_context_id,
        operation_mode=row.operation_mode,
        device_path=row.device_path,
        cloudstack_device_id=row.cloudstack_device_id,
        cloudstack_state=row.cloudstack_state,
        linux_state=row.linux_state,
        size=row.size,
        last_sync=row.last_sync,
    )


def _cloudstack(volume: Volume | None, problem: str | None) -> dict[str, Any]:
    if volume is None:
        return {"known": False if problem is None else None, "problem": problem}
    return {
        "known": True,
        "problem": None,
        "name": volume.name,
        "state": volume.state,
        "type": volume.type,
        "size_bytes": volume.size_bytes,
        "vm_id": volume.vm_id,
        "vm_name": volume.vm_name,
        "vm_state": volume.vm_state,
        "device_id": volume.device_id,
        "pending_job_id": pending_job(volume),
    }


def _linux(seen: Seen) -> dict[str, Any]:
    present = seen.sight in {Sight.PRESENT, Sight.WRONG_SIZE}
    return {
        "state": LINUX_STATES[seen.sight],
        "link": str(seen.link) if present else None,
        "size_bytes": seen.size_bytes,
        "problem": seen.problem,
    }


def operations_body(operations: Sequence[Operation]) -> dict[str, Any]:
    return {"operations": [operation.as_json() for operation in operations], "count": len(operations)}
