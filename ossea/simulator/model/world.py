"""All entities with their indexes, and what changed since the last time somebody asked."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from ossea.simulator.model.catalog import HOST_ID, HOST_NAME
from ossea.simulator.model.effects import DeviceAppeared, DeviceGone, Effect, VolumeErased, serial_of
from ossea.simulator.model.entities import (
    DATADISK,
    ROOT,
    Event,
    Host,
    Job,
    JobStatus,
    Project,
    Snapshot,
    Tag,
    Vm,
    VmSnapshot,
    Volume,
    VolumeState,
)
from ossea.simulator.model.settings import Settings


class Row(Protocol):
    id: str


R = TypeVar("R", bound=Row)

KEPT_EVENTS = 50_000


class Table(Generic[R]):
    """Rows by id in the order they came; remembers which of them changed."""

    def __init__(self, kind: type[R]) -> None:
        self.kind = kind
        self.rows: dict[str, R] = {}
        self.changed: set[str] = set()
        self._fields = tuple(f.name for f in dataclasses.fields(kind))  # type: ignore[arg-type]

    def find(self, row_id: str) -> R | None:
        return self.rows.get(row_id)

    def add(self, row: R) -> R:
        self.rows[row.id] = row
        self.changed.add(row.id)
        return row

    def touch(self, row: R) -> None:
        self.changed.add(row.id)

    def drop(self, row_id: str) -> None:
        if self.rows.pop(row_id, None) is not None:
            self.changed.add(row_id)

    def newest_first(self) -> Iterator[R]:
        return reversed(self.rows.values())

    def as_json(self, row: R) -> dict[str, Any]:
        return {name: getattr(row, name) for name in self._fields}


class Index:
    """Ids by the id of what they belong to, in the order they came."""

    def __init__(self) -> None:
        self._members: dict[str, dict[str, None]] = {}

    def add(self, owner: str, member: str) -> None:
        self._members.setdefault(owner, {})[member] = None

    def drop(self, owner: str, member: str) -> None:
        members = self._members.get(owner)
        if members is not None:
            members.pop(member, None)
            if not members:
                del self._members[owner]

    def of(self, owner: str) -> Iterable[str]:
        return self._members.get(owner, ())


class World:
    """The cloud's database and hypervisors; every change goes through here or is told by `touch`."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings = settings
        self.random = random.Random(seed)  # noqa: S311  ids must repeat with the seed
        self.effects: list[Effect] = []
        self.hosts = Table(Host)
        self.hosts.rows[HOST_ID] = Host(HOST_ID, HOST_NAME, "Up")
        self.projects = Table(Project)
        self.vms = Table(Vm)
        self.volumes = Table(Volume)
        self.snapshots = Table(Snapshot)
        self.vm_snapshots = Table(VmSnapshot)
        self.tags = Table(Tag)
        self.jobs = Table(Job)
        self.events = Table(Event)
        self.now = 0.0
        """The time at which what happens now happens; the machine and the job runner set it."""
        self.counter = 0
        self.forgotten_ends: dict[str, tuple[float, bool]] = {}
        """When jobs ended whose rows are gone by now, and whether they succeeded; no answer shows it."""
        self.expunge_due: dict[str, float] = {}
        """When destroyed VMs will be expunged."""
        self._volumes_by_vm = Index()
        self._snapshots_by_volume = Index()
        self._vm_snapshots_by_vm = Index()
        self._tags_by_resource = Index()
        self._events_by_resource = Index()
        self._pending_by_instance: dict[str, dict[str, None]] = {}

    def tables(self) -> dict[str, Table[Any]]:
        return {
            "hosts": self.hosts,
            "projects": self.projects,
            "vms": self.vms,
            "volumes": self.volumes,
            "snapshots": self.snapshots,
            "vm_snapshots": self.vm_snapshots,
            "tags": self.tags,
            "jobs": self.jobs,
            "events": self.events,
        }

    def new_id(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def next_number(self) -> int:
        self.counter += 1
        return self.counter

    # Rows come in

    def add_volume(self, volume: Volume) -> None:
        self.volumes.add(volume)
        if volume.vm_id is not None:
            self._volumes_by_vm.add(volume.vm_id, volume.id)

    def add_snapshot(self, snapshot: Snapshot) -> None:
        self.snapshots.add(snapshot)
        self._snapshots_by_volume.add(snapshot.volume_id, snapshot.id)

    def move_snapshot(self, snapshot: Snapshot, volume_id: str) -> None:
        """The row names another volume from now on; its content stays."""
        self._snapshots_by_volume.drop(snapshot.volume_id, snapshot.id)
        snapshot.volume_id = volume_id
        self._snapshots_by_volume.add(volume_id, snapshot.id)
        self.snapshots.touch(snapshot)

    def add_vm_snapshot(self, vm_snapshot: VmSnapshot) -> None:
        self.vm_snapshots.add(vm_snapshot)
        self._vm_snapshots_by_vm.add(vm_snapshot.vm_id, vm_snapshot.id)

    def add_tag(self, tag: Tag) -> None:
        self.tags.add(tag)
        self._tags_by_resource.add(tag.resource_id, tag.id)

    def drop_tag(self, tag: Tag) -> None:
        self.tags.drop(tag.id)
        self._tags_by_resource.drop(tag.resource_id, tag.id)

    def add_job(self, job: Job) -> None:
        self.jobs.add(job)
        if job.status == JobStatus.PENDING and job.instance_id is not None:
            self._pending_by_instance.setdefault(job.instance_id, {})[job.id] = None

    def job_is_no_longer_pending(self, job: Job) -> None:
        self.jobs.touch(job)
        if job.instance_id is not None:
            pending = self._pending_by_instance.get(job.instance_id, {})
            pending.pop(job.id, None)
            if not pending:
                self._pending_by_instance.pop(job.instance_id, None)

    def log_event(self, kind: str, state: str, description: str, **more: str | None) -> None:
        level = more.get("level") or "INFO"
        self.add_event(Event(self.new_id(), kind, level, state, description, self.now, more.get("resource_id")))

    def add_event(self, event: Event) -> None:
        """The oldest go where there are too many."""
        self.events.add(event)
        if event.resource_id is not None:
            self._events_by_resource.add(event.resource_id, event.id)
        while len(self.events.rows) > KEPT_EVENTS:
            self.drop_event(next(iter(self.events.rows.values())))

    def drop_event(self, event: Event) -> None:
        self.events.drop(event.id)
        if event.resource_id is not None:
            self._events_by_resource.drop(event.resource_id, event.id)

    # Rows are looked up

    def live_vm(self, vm_id: str) -> Vm | None:
        vm = self.vms.find(vm_id)
        return vm if vm is not None and vm.removed is None else None

    def live_volume(self, volume_id: str) -> Volume | None:
        volume = self.volumes.find(volume_id)
        return volume if volume is not None and volume.removed is None else None

    def live_snapshot(self, snapshot_id: str) -> Snapshot | None:
        snapshot = self.snapshots.find(snapshot_id)
        return snapshot if snapshot is not None and snapshot.removed is None else None

    def volumes_on(self, vm_id: str) -> list[Volume]:
        return [v for v in map(self.live_volume, self._volumes_by_vm.of(vm_id)) if v is not None]

    def snapshots_of(self, volume_id: str) -> list[Snapshot]:
        return [s for s in map(self.live_snapshot, self._snapshots_by_volume.of(volume_id)) if s is not None]

    def vm_snapshots_of(self, vm_id: str) -> list[VmSnapshot]:
        rows = (self.vm_snapshots.rows[row_id] for row_id in self._vm_snapshots_by_vm.of(vm_id))
        return [row for row in rows if row.removed is None]

    def tags_of(self, resource_id: str) -> list[Tag]:
        return [self.tags.rows[tag_id] for tag_id in self._tags_by_resource.of(resource_id)]

    def events_of(self, resource_id: str) -> list[Event]:
        """Newest first, as they were written."""
        return [self.events.rows[event_id] for event_id in reversed(list(self._events_by_resource.of(resource_id)))]

    def pending_job_of(self, instance_id: str) -> str | None:
        """The oldest pending job on the entity."""
        return next(iter(self._pending_by_instance.get(instance_id, ())), None)

    # Changes that touch an index or the hypervisor

    def attach(self, volume: Volume, vm_id: str, device_id: int) -> None:
        """As `VolumeDaoImpl.attachVolume`: device 0 makes the volume ROOT."""
        volume.vm_id = vm_id
        volume.device_id = device_id
        volume.attached = self.now
        volume.type = ROOT if device_id == 0 else DATADISK
        self._volumes_by_vm.add(vm_id, volume.id)
        self.volumes.touch(volume)

    def detach(self, volume: Volume) -> None:
        """As `VolumeDaoImpl.detachVolume`: a detached volume is a data disk."""
        if volume.vm_id is not None:
            self._volumes_by_vm.drop(volume.vm_id, volume.id)
        volume.vm_id = None
        volume.device_id = None
        volume.attached = None
        volume.type = DATADISK
        self.volumes.touch(volume)

    def show_device(self, volume: Volume, vm_id: str, job_id: str | None) -> None:
        """The VM's guest sees the volume; another guest that sees it still keeps it."""
        if volume.device_on not in {None, vm_id}:
            if volume.also_on not in {None, vm_id}:
                self._device_is_gone(volume, volume.also_on, job_id)
            volume.also_on = volume.device_on
        elif volume.also_on == vm_id:
            volume.also_on = None
        volume.device_on = vm_id
        volume.touches += 1
        self.volumes.touch(volume)
        self.effects.append(DeviceAppeared(self.now, job_id, volume.id, vm_id, serial_of(volume.id)))

    def hide_device(self, volume: Volume, job_id: str | None) -> None:
        if volume.device_on is not None:
            self._device_is_gone(volume, volume.device_on, job_id)
            volume.device_on = None
            self.volumes.touch(volume)

    def release_device(self, volume: Volume, job_id: str | None = None) -> None:
        """Every guest but that of the VM which has the volume by CloudStack's database loses the device."""
        volume.keeps_device = False
        if volume.also_on is not None:
            self._device_is_gone(volume, volume.also_on, job_id)
            volume.also_on = None
        if volume.device_on != volume.vm_id:
            self.hide_device(volume, job_id)
        self.volumes.touch(volume)

    def _device_is_gone(self, volume: Volume, vm_id: str | None, job_id: str | None) -> None:
        if vm_id is not None:
            self.effects.append(DeviceGone(self.now, job_id, volume.id, vm_id, serial_of(volume.id)))

    def erase_volume(self, volume: Volume, job_id: str | None = None) -> None:
        """The bytes are gone and no list shows it any more."""
        self.detach(volume)
        self.release_device(volume, job_id)
        volume.state = VolumeState.EXPUNGED
        volume.removed = self.now
        self.effects.append(VolumeErased(self.now, job_id, volume.id))
