"""Puts VMs into database and cloud as a dead failover left them, and keeps what their content ought to be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.engine import Connection

from oma.demo.rows import export_file, export_text, insert_vm
from oma.demo.stack import Stack
from oma.demo.story import MIB, Disk, Place, SeededVm, SnapshotStory, VmStory, cast


@dataclass(slots=True)
class World:
    """What was seeded. `good` holds each volume's hash at its snapshot, `found` the hash after somebody wrote to it."""

    stack: Stack
    good: dict[str, str] = field(default_factory=dict)
    found: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    """Everything of every VM that a call could name → its context."""

    async def seed(self, story: VmStory) -> SeededVm:
        """Cloud first, rows last: nobody finds rows of volumes that are not there yet.

        The content at the snapshot differs from what stands on the volume afterwards, so that only the right revert
        brings the good hash back.
        """
        vm = cast(story, datetime.now(UTC))
        self.owners |= dict.fromkeys(vm.ids, vm.context_id)
        admin = self.stack.admin
        await admin.seed(vms=self._vms(vm), volumes=self._volumes(vm))
        await asyncio.gather(*(self._seed_content(vm, disk) for disk in vm.disks))
        await asyncio.to_thread(self._write_exports, vm)
        await self.stack.door.write(lambda connection: self._insert(connection, vm))
        return vm

    async def seed_all(self, stories: Iterable[VmStory]) -> list[SeededVm]:
        return [await self.seed(story) for story in stories]

    async def look_again(self, vm: SeededVm) -> None:
        """Somebody else wrote to its disks: what is there now is what a refusal has to leave."""
        for volume_id in vm.volume_ids:
            self.found[volume_id] = await self.stack.admin.volume_hash(volume_id)

    async def _seed_content(self, vm: SeededVm, disk: Disk) -> None:
        """The first snapshot keeps the replication's content, each later one what was written before it."""
        admin = self.stack.admin
        self.good[disk.volume_id] = await admin.volume_hash(disk.volume_id)
        for at, (snapshot_id, snapshot) in enumerate(zip(disk.snapshot_ids, disk.story.snapshots, strict=True)):
            if at:
                await admin.write(disk.volume_id, offset=0, fill=f"before snapshot {at} of {vm.name}/{disk.number}")
            await admin.seed(snapshots=[_snapshot(vm, disk, snapshot_id, snapshot)])
            if not snapshot.listed:
                await admin.delete_snapshot(snapshot_id)
        if disk.story.written:
            await admin.write(disk.volume_id, offset=0, fill=f"written during the failover of {vm.name}/{disk.number}")
        self.found[disk.volume_id] = await admin.volume_hash(disk.volume_id)
        if disk.story.written and self.found[disk.volume_id] == self.good[disk.volume_id]:
            raise RuntimeError(f"the content of {disk.name} was not overwritten")

    def _insert(self, connection: Connection, vm: SeededVm) -> None:
        stack = self.stack
        insert_vm(connection, vm, stack.oma_vm_id, stack.device_root, stack.nbd_dir)

    def _write_exports(self, vm: SeededVm) -> None:
        for disk in vm.disks:
            export = disk.story.export
            if export is not None:
                path = export_file(export, self.stack.nbd_dir)
                path.write_text(export_text(export, self.stack.device_root / disk.link), encoding="utf-8")

    def _vms(self, vm: SeededVm) -> list[dict[str, Any]]:
        made: list[dict[str, Any]] = []
        created = vm.begun_at.isoformat()
        if vm.story.test_vm is not None:
            made.append({"id": vm.test_vm_id, "name": vm.test_vm_name, "state": vm.story.test_vm, "created": created})
            if vm.story.was_started is not None:
                made[-1]["started"] = vm.story.was_started
        if any(disk.story.place is Place.FOREIGN_VM for disk in vm.disks):
            made.append({"id": vm.foreign_vm_id, "name": "somebody-elses-vm", "state": "Running", "created": created})
        return made

    def _volumes(self, vm: SeededVm) -> list[dict[str, Any]]:
        made = [{"name": f"ROOT-{vm.test_vm_name}", "size_bytes": MIB, "vm_id": vm.test_vm_id, "device_id": 0}]
        return (made if vm.story.own_root else []) + [
            {
                "id": disk.volume_id,
                "name": disk.name,
                "size_bytes": disk.story.size_bytes,
                "fill": f"replica of {vm.context_id}/{disk.number}",
                **self._attachment(vm, disk),
            }
            for disk in vm.disks
        ]

    def _attachment(self, vm: SeededVm, disk: Disk) -> dict[str, Any]:
        match disk.story.place:
            case Place.OMA:
                return {"vm_id": self.stack.oma_vm_id}
            case Place.TEST_VM:
                # The system disk is the test VM's root; slot 3 is the CD drive's.
                slot = disk.number if disk.number < CD_SLOT else disk.number + 1
                return {"vm_id": vm.test_vm_id, "device_id": slot}
            case Place.FOREIGN_VM:
                return {"vm_id": vm.foreign_vm_id}
            case Place.NOWHERE:
                return {}


def _snapshot(vm: SeededVm, disk: Disk, snapshot_id: str, snapshot: SnapshotStory) -> dict[str, Any]:
    return {
        "id": snapshot_id,
        "volume_id": disk.volume_id,
        "name": f"multi-test-failover-{disk.name}",
        "created": (vm.begun_at + snapshot.after).isoformat(),
        "state": snapshot.state,
        "size_bytes": snapshot.size_bytes or disk.story.size_bytes,
    }


CD_SLOT = 3
