"""One question for many askers: looks at CloudStack and the OMA that many jobs want at once are asked together.

An answer is only given to those who asked before the look began, so "a scan begun after the detach ended" stays true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from oma.domain.holders import DeviceHolders
from oma.domain.records import VmRecords
from oma.domain.world import CloudSnapshot, CloudVm, CloudVolume, DeviceScan, Mark
from oma.ports import Cloud, Inventory, Volumes

T = TypeVar("T")
BATCH = 200
"""Ids in one question: a CloudStack list of 200 UUIDs stays under the 8 kB that web servers take for a request line."""


class Sweep(Generic[T]):
    """Collects the ids that are asked for while a look is under way, and asks for them together in the next."""

    def __init__(self, look: Callable[[Sequence[str]], Awaitable[Sequence[T]]], id_of: Callable[[T], str]) -> None:
        self._look = look
        self._id_of = id_of
        self._waiting: list[tuple[frozenset[str], asyncio.Future[dict[str, T]]]] = []
        self._running: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Nobody asks, and no look is under way."""
        return self._running is None and not self._waiting

    async def get(self, ids: Sequence[str]) -> list[T]:
        """Those of the things that are listed, in the order asked; raises what the look raised."""
        if not ids:
            return []
        answer: asyncio.Future[dict[str, T]] = asyncio.get_running_loop().create_future()
        self._waiting.append((frozenset(ids), answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        found = await answer
        return [found[one] for one in ids if one in found]

    async def _run(self) -> None:
        await asyncio.sleep(0)
        try:
            while self._waiting:
                asked, self._waiting = self._waiting, []
                await self._answer(asked)
        finally:
            self._running = None

    async def _answer(self, asked: list[tuple[frozenset[str], asyncio.Future[dict[str, T]]]]) -> None:
        ids = sorted(frozenset().union(*(one for one, _ in asked)))
        try:
            batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
            found = {self._id_of(item): item for batch in batches for item in await self._look(batch)}
        except Exception as error:  # noqa: BLE001  # whatever went wrong belongs to every asker
            for _, answer in asked:
                if not answer.done():
                    answer.set_exception(error)
            return
        for _, answer in asked:
            if not answer.done():
                answer.set_result(found)


class Shared(Generic[T]):
    """Whole answers that many want at once, by name: one question for all who ask for the same before it begins.

    Each name is asked for by itself, so that one that fails or is slow is the trouble of its own askers only.
    """

    def __init__(self, look: Callable[[str], Awaitable[T]]) -> None:
        self._look = look
        self._sweeps: dict[str, Sweep[tuple[str, T]]] = {}

    async def get(self, name: str) -> T:
        sweep = self._sweeps.setdefault(name, Sweep[tuple[str, T]](self._ask, lambda answer: answer[0]))
        try:
            ((_, answer),) = await sweep.get([name])
        finally:
            if sweep.is_idle:
                self._sweeps.pop(name, None)
        return answer

    async def _ask(self, names: Sequence[str]) -> Sequence[tuple[str, T]]:
        return [(name, await self._look(name)) for name in names]


class SweptInventory:
    """`Inventory` whose records of single VMs are read together; everything else passes through."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._records = Sweep[VmRecords](inventory.list_records_of, lambda records: records.context.context_id)
        self.list_contexts_named = inventory.list_contexts_named
        self.find_context = inventory.find_context
        self.list_records_of = inventory.list_records_of
        self.list_known_volume_ids = inventory.list_known_volume_ids
        self.list_records = inventory.list_records

    async def get_records(self, context_id: str) -> VmRecords:
        found = await self._records.get([context_id])
        return found[0] if found else await self._inventory.get_records(context_id)


class SweptCloud:
    """`Cloud` whose lists are swept by id, or shared by what they are about; everything else passes through."""

    def __init__(self, cloud: Cloud) -> None:
        self._volumes = Sweep[CloudVolume](cloud.list_volumes, lambda volume: volume.id)
        self._snapshots = Sweep[CloudSnapshot](cloud.list_snapshots, lambda snapshot: snapshot.id)
        self._vms = Sweep[CloudVm](cloud.list_vms, lambda vm: vm.id)
        self.list_volumes = self._volumes.get
        self.list_snapshots = self._snapshots.get
        self.list_vms = self._vms.get
        self.list_volumes_of_vm = Shared[Sequence[CloudVolume]](cloud.list_volumes_of_vm).get
        self.list_vm_snapshot_holders = Sweep[str](cloud.list_vm_snapshot_holders, str).get
        self._marks = Shared[Sequence[Mark]](lambda _: cloud.list_marks())
        self.list_vms_named = Shared[Sequence[CloudVm]](cloud.list_vms_named).get
        self.list_snapshots_named = Shared[Sequence[CloudSnapshot]](cloud.list_snapshots_named).get
        self.list_vm_events = cloud.list_vm_events
        self.list_volume_events = cloud.list_volume_events
        self.find_host = cloud.find_host
        self.find_host_state = cloud.find_host_state
        self.find_epoch = cloud.find_epoch
        self.put_epoch = cloud.put_epoch
        self.list_marks_of = cloud.list_marks_of
        self.submit_set_marks = cloud.submit_set_marks
        self.submit_clear_marks = cloud.submit_clear_marks
        self.burn = cloud.burn
        self.find_server_time = cloud.find_server_time
        self.submit_stop_vm = cloud.submit_stop_vm
        self.submit_destroy_vm = cloud.submit_destroy_vm
        self.submit_revert = cloud.submit_revert
        self.submit_delete_snapshot = cloud.submit_delete_snapshot
        self.wait_job = cloud.wait_job
        self.query_job = cloud.query_job
        self.check = cloud.check

    async def list_marks(self) -> Sequence[Mark]:
        return await self._marks.get("")


class SweptVolumes:
    """`Volumes` whose scans for devices and holders are shared."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        self._scans = Sweep[DeviceScan](self._scan, lambda _: _SCAN)
        self.find_mapping = volumes.find_mapping
        self.list_holders = Shared[DeviceHolders | None](volumes.list_holders).get
        self.end_holders = volumes.end_holders
        self.submit_attach = volumes.submit_attach
        self.submit_detach = volumes.submit_detach
        self.burn = volumes.burn
        self.wait_operation = volumes.wait_operation
        self.list_open_operations = volumes.list_open_operations
        self.check = volumes.check

    async def scan_devices(self) -> DeviceScan:
        (scan,) = await self._scans.get([_SCAN])
        return scan

    async def _scan(self, _: Sequence[str]) -> Sequence[DeviceScan]:
        return [await self._volumes.scan_devices()]


_SCAN = "scan"
