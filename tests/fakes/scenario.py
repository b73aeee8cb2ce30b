"""Broken VMs, as rows of the database and as what CloudStack and the Volume Daemon show, at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import Connection, insert, select

from database.tables import (
    device_mappings,
    failover_jobs,
    job_steps,
    job_tracking,
    ossea_configs,
    ossea_volumes,
    replication_jobs,
    vm_disks,
    vm_replication_contexts,
)
from oma.domain.world import Mapping
from tests.fakes.volumes import FakeVolumes
from tests.fakes.world import GIB, OMA_VM_ID, FakeWorld

SPACE = UUID("5d1f6d4c-2222-4222-8222-222222222222")
TEST_VM, OMA, NOWHERE = "test vm", "oma", "nowhere"
INJECTION = "virtio-driver-injection"


def uid(*words: object) -> str:
    return str(uuid5(SPACE, "/".join(str(word) for word in words)))


@dataclass
class Disk:
    """`place` is `TEST_VM`, `OMA`, `NOWHERE` or a VM's id; `mode` None leaves the mapping out."""

    place: str = TEST_VM
    snapshot: bool = True
    dirty: bool = True
    mode: str | None = "failover"


@dataclass
class BrokenVm:
    """A dead test failover; by default two volumes hang on its running test VM, the first as its root."""

    name: str = "pgtest1"
    disks: list[Disk] = field(default_factory=lambda: [Disk(), Disk()])
    status: str = "failed_over_test"
    vcenter: str = "vc-1"
    test_vm_state: str | None = "Running"
    """None: no test VM was made."""
    failover_status: str = "pending"
    job_type: str = "test"
    joblog_status: str = "running"
    steps: tuple[str, ...] = (INJECTION, "vm-creation", "volume-attachment")
    running_steps: tuple[str, ...] = ()
    last_sign_h: float = 1.5
    """Hours since the failover's last step ended."""
    other_vm_ids: list[str] = field(default_factory=list)
    """VMs of this failover that no record names."""

    @property
    def context_id(self) -> str:
        return f"ctx-{uid('context', self.name, self.vcenter)}"

    @property
    def test_vm_id(self) -> str:
        return uid("test vm", self.name, self.vcenter)

    @property
    def failover_job_id(self) -> str:
        return f"failover-{uid('failover', self.name, self.vcenter)}"

    @property
    def replication_id(self) -> str:
        return f"repl-{uid('replication', self.name, self.vcenter)}"

    def volume_id(self, disk: int) -> str:
        return uid("volume", self.name, self.vcenter, disk)

    def snapshot_id(self, disk: int) -> str:
        return uid("snapshot", self.name, self.vcenter, disk)

    def clean_content(self, disk: int) -> str:
        return f"{self.name}/{disk}"

    @property
    def volume_ids(self) -> list[str]:
        return [self.volume_id(disk) for disk in range(len(self.disks))]

    @property
    def snapshot_ids(self) -> list[str]:
        return [self.snapshot_id(number) for number, disk in enumerate(self.disks) if disk.snapshot]


def put_into_world(vm: BrokenVm, world: FakeWorld, volumes: FakeVolumes) -> None:
    """Content at the snapshot is `<name>/<disk>`; a dirty disk has been written to since."""
    now = world.clock.now()
    if vm.test_vm_state is not None:
        world.seed(vms=[{"id": vm.test_vm_id, "name": f"{vm.name}-test", "state": vm.test_vm_state}])
    for number, disk in enumerate(vm.disks):
        volume_id = vm.volume_id(number)
        where = {TEST_VM: vm.test_vm_id, OMA: world.oma_vm_id, NOWHERE: None}.get(disk.place, disk.place)
        row: dict[str, Any] = {
            "id": volume_id,
            "name": f"{vm.name}-disk-{number}",
            "size_bytes": GIB,
            "fill": vm.clean_content(number),
        }
        if where is not None:
            row["vm_id"] = where
        if disk.place == TEST_VM and number == 0:
            row["device_id"] = 0
        world.seed(volumes=[row])
        if disk.snapshot:
            made = (now - timedelta(minutes=110)).timestamp()
            world.seed(
                snapshots=[
                    {
                        "id": vm.snapshot_id(number),
                        "volume_id": volume_id,
                        "name": f"test-failover-{number}",
                        "created": made,
                    }
                ]
            )
        if disk.dirty:
            world.content[volume_id] = f"{vm.clean_content(number)} and what the test VM wrote"
        if disk.mode is not None:
            path = f"remote-vm-{where}-{number}" if disk.mode == "failover" else f"/dev/disk/by-id/virtio-{number}"
            volumes.mappings[volume_id] = Mapping(volume_id, where, path, disk.mode)


def put_into_rows(connection: Connection, vm: BrokenVm, now: datetime) -> None:
    _put_config(connection)
    connection.execute(
        insert(replication_jobs).values(
            id=vm.replication_id,
            vm_context_id=vm.context_id,
            status="completed",
            started_at=now - timedelta(hours=5),
            completed_at=now - timedelta(hours=4),
            updated_at=now - timedelta(hours=4),
        )
    )
    connection.execute(
        insert(vm_replication_contexts).values(
            context_id=vm.context_id,
            vm_name=vm.name,
            vcenter_host=vm.vcenter,
            current_status=vm.status,
            current_job_id=vm.replication_id,
            last_status_change=now - timedelta(hours=2),
        )
    )
    for number, disk in enumerate(vm.disks):
        _put_disk(connection, vm, number, disk, now)
    _put_failover(connection, vm, now)


def _put_config(connection: Connection) -> None:
    if connection.execute(select(ossea_configs.c.id)).first() is None:
        connection.execute(insert(ossea_configs).values(id=1, name="production", oma_vm_id=OMA_VM_ID, is_active=True))


def _put_disk(connection: Connection, vm: BrokenVm, number: int, disk: Disk, now: datetime) -> None:
    tracked: dict[str, Any] = {}
    if disk.snapshot:
        tracked = {
            "snapshot_id": vm.snapshot_id(number),
            "snapshot_status": "ready",
            "snapshot_created_at": now - timedelta(minutes=110),
        }
    done = connection.execute(
        insert(ossea_volumes).values(
            vm_context_id=vm.context_id,
            volume_id=vm.volume_id(number),
            volume_name=f"{vm.name}-disk-{number}",
            size_gb=1,
            ossea_config_id=1,
            status="detached",
            **tracked,
        )
    )
    assert done.inserted_primary_key is not None
    connection.execute(
        insert(vm_disks).values(
            vm_context_id=vm.context_id,
            job_id=vm.replication_id,
            disk_id=f"disk-{2000 + number}",
            size_gb=1,
            unit_number=number,
            capacity_bytes=GIB,
            ossea_volume_id=done.inserted_primary_key[0],
            disk_change_id=f"change-{number}",
        )
    )
    if disk.mode is not None:
        connection.execute(
            insert(device_mappings).values(
                id=uid("mapping", vm.name, vm.vcenter, number),
                volume_uuid=vm.volume_id(number),
                volume_id=vm.volume_id(number),
                vm_id=vm.test_vm_id,
                operation_mode=disk.mode,
                device_path=f"remote-vm-{vm.test_vm_id}-{number}",
                ossea_snapshot_id=vm.snapshot_id(number) if disk.snapshot else None,
                snapshot_status="ready" if disk.snapshot else "none",
            )
        )


def _put_failover(connection: Connection, vm: BrokenVm, now: datetime) -> None:
    connection.execute(
        insert(failover_jobs).values(
            vm_context_id=vm.context_id,
            job_id=vm.failover_job_id,
            job_type=vm.job_type,
            status=vm.failover_status,
            source_vm_name=vm.name,
            destination_vm_id=vm.test_vm_id if vm.test_vm_state is not None else None,
            created_at=now - timedelta(hours=2),
        )
    )
    connection.execute(
        insert(job_tracking).values(
            id=vm.failover_job_id,
            job_type="failover",
            operation="test-failover",
            status=vm.joblog_status,
            context_id=vm.context_id,
            job_category="failover",
            owner="scheduler",
            started_at=now - timedelta(hours=2),
        )
    )
    for seq, name in enumerate((*vm.steps, *vm.running_steps), 1):
        running = name in vm.running_steps
        connection.execute(
            insert(job_steps).values(
                job_id=vm.failover_job_id,
                name=name,
                seq=seq,
                status="running" if running else "completed",
                started_at=now - timedelta(hours=1.9),
                completed_at=None if running else now - timedelta(hours=vm.last_sign_h),
            )
        )
