"""Collects the evidence: every side is asked at once, in bounded time; a missing answer stays a missing answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from oma.domain.evidence import Evidence, GuardLimits, SnapshotFacts
from oma.domain.records import OmaConfig, VmRecords
from oma.domain.world import CloudSnapshot, CloudVolume, DeviceScan, Mapping, Unanswered, VolumeFacts
from oma.ports import Clock, Cloud, UpstreamError, Volumes
from oma.workflow.identity import needs_volume_comparison

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """The sides that can be asked, and the clock that dates their answers."""

    cloud: Cloud
    volumes: Volumes
    clock: Clock


async def collect_evidence(records: VmRecords, world: World, limits: GuardLimits, timeout_s: float) -> Evidence:
    """Asks CloudStack, the Volume Daemon and the OMA about one VM; changes nothing and never raises `UpstreamError`."""
    cloud, volumes = world.cloud, world.volumes
    observed_at = world.clock.now()
    config = choose_config(records)
    oma_vm_id = config.oma_vm_id if config else None
    ids = [volume.volume_id for volume in records.volumes]
    tracked = tracked_snapshot_ids(records)
    asker = _Asker(timeout_s)
    listed, devices, snapshots, mappings = await asyncio.gather(
        asker.ask("where the volumes are", "CloudStack", cloud.list_volumes(ids)),
        asker.ask("which devices the OMA shows", "Volume Daemon", volumes.scan_devices()),
        asker.ask("the tracked snapshots", "CloudStack", cloud.list_snapshots(list(tracked))),
        asyncio.gather(
            *(asker.ask(f"the mapping of {one}", "Volume Daemon", volumes.find_mapping(one)) for one in ids)
        ),
    )
    holders = _holders(listed)
    product_uuid = None if isinstance(devices, Unanswered) else devices.product_uuid
    compared = oma_vm_id if needs_volume_comparison(limits.oma_identity, product_uuid) else None
    vms, on_oma, snapshot_holders = await asyncio.gather(
        asker.ask("the VMs", "CloudStack", cloud.list_vms(_vm_ids(records, oma_vm_id, holders))),
        asker.ask("what hangs on the OMA", "CloudStack", _volume_ids_of_vm(cloud, compared)),
        asker.ask("the VM snapshots", "CloudStack", _vm_snapshot_holders(cloud, holders)),
    )
    return Evidence(
        records=records,
        config=config,
        volumes=tuple(_facts(one, listed, mapping, devices) for one, mapping in zip(ids, mappings, strict=True)),
        snapshots=tuple(_snapshot_facts(tracked, snapshots)),
        vms=() if isinstance(vms, Unanswered) else tuple(vms),
        devices=devices,
        volumes_on_oma=on_oma,
        unanswered=tuple(asker.unanswered),
        limits=limits,
        observed_at=observed_at,
        vm_snapshot_holders=() if isinstance(snapshot_holders, Unanswered) else tuple(snapshot_holders),
    )


def choose_config(records: VmRecords) -> OmaConfig | None:
    """The one configuration that the volumes' rows name (none named: the single active one); None if not to be told."""
    active = [config for config in records.configs if config.is_active]
    default = active[0].id if len(active) == 1 else None
    named = {volume.ossea_config_id or default for volume in records.volumes} or {default}
    if len(named) != 1:
        return None
    (config_id,) = named
    return next((config for config in records.configs if config.id == config_id and config.oma_vm_id), None)


def tracked_snapshot_ids(records: VmRecords) -> dict[str, dict[str, list[str]]]:
    """Snapshot id → volume id → the places that name it for that volume.

    An open failover's own `ossea_snapshot_id` names no volume; where no volume's row names it too it counts for the
    system disk, because existing installations wrote it before they tracked a snapshot per volume.
    """
    tracked: dict[str, dict[str, list[str]]] = {}
    for volume in records.volumes:
        if volume.snapshot_id:
            tracked.setdefault(volume.snapshot_id, {}).setdefault(volume.volume_id, []).append("ossea_volumes")
    for mapping in records.mappings:
        if mapping.ossea_snapshot_id:
            places = tracked.setdefault(mapping.ossea_snapshot_id, {})
            places.setdefault(mapping.volume_uuid, []).append("device_mappings")
    system_volume_id = _system_volume_id(records)
    for failover in records.failovers:
        snapshot_id = failover.ossea_snapshot_id
        if failover.is_open and snapshot_id and system_volume_id and snapshot_id not in tracked:
            tracked[snapshot_id] = {system_volume_id: ["failover_jobs"]}
    return tracked


def _system_volume_id(records: VmRecords) -> str | None:
    row_id = next((disk.ossea_volume_id for disk in records.disks if disk.is_system_disk), None)
    return next((volume.volume_id for volume in records.volumes if volume.id == row_id), None)


def _snapshot_facts(
    tracked: dict[str, dict[str, list[str]]], snapshots: Sequence[CloudSnapshot] | Unanswered
) -> list[SnapshotFacts]:
    by_id = {} if isinstance(snapshots, Unanswered) else {snapshot.id: snapshot for snapshot in snapshots}
    return [
        SnapshotFacts(
            volume_id=volume_id,
            snapshot_id=snapshot_id,
            tracked_in=tuple(places),
            cloud=snapshots if isinstance(snapshots, Unanswered) else by_id.get(snapshot_id),
        )
        for snapshot_id, by_volume in tracked.items()
        for volume_id, places in by_volume.items()
    ]


def _facts(
    volume_id: str,
    listed: Sequence[CloudVolume] | Unanswered,
    mapping: Mapping | Unanswered | None,
    devices: DeviceScan | Unanswered,
) -> VolumeFacts:
    cloud: CloudVolume | Unanswered | None
    if isinstance(listed, Unanswered):
        cloud = listed
    else:
        cloud = next((volume for volume in listed if volume.id == volume_id), None)
    on_oma = devices if isinstance(devices, Unanswered) else devices.shows(volume_id)
    return VolumeFacts(volume_id=volume_id, cloud=cloud, mapping=mapping, on_oma=on_oma)


def _holders(listed: Sequence[CloudVolume] | Unanswered) -> list[str]:
    if isinstance(listed, Unanswered):
        return []
    return sorted({volume.vm_id for volume in listed if volume.vm_id is not None})


def _vm_ids(records: VmRecords, oma_vm_id: str | None, holders: list[str]) -> list[str]:
    destinations = (failover.destination_vm_id for failover in records.failovers[:1])
    return sorted({vm_id for vm_id in (oma_vm_id, *destinations, *holders) if vm_id})


async def _volume_ids_of_vm(cloud: Cloud, vm_id: str | None) -> tuple[str, ...]:
    if vm_id is None:
        return ()
    return tuple(volume.id for volume in await cloud.list_volumes_of_vm(vm_id))


async def _vm_snapshot_holders(cloud: Cloud, holders: list[str]) -> Sequence[str]:
    return await cloud.list_vm_snapshot_holders(holders) if holders else ()


class _Asker:
    """Turns every failure to get an answer into an `Unanswered`, and keeps the list of them."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.unanswered: list[Unanswered] = []

    async def ask(self, question: str, asked: str, answer: Awaitable[T]) -> T | Unanswered:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError:
            reason = f"no answer within {self._timeout_s:g} s"
        except UpstreamError as error:
            reason = f"{error.upstream.code}: {error.upstream.text}"
        unanswered = Unanswered(question, asked, reason)
        self.unanswered.append(unanswered)
        return unanswered
