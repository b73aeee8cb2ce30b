"""Collects the evidence: every side is asked at once, in bounded time; a missing answer stays a missing answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from oma.domain.evidence import Evidence, GuardLimits, VmContents, VmHistory
from oma.domain.holders import DeviceHolders
from oma.domain.records import OmaConfig, VmRecords
from oma.domain.words import SILENT, Words
from oma.domain.world import CloudVm, CloudVolume, DeviceScan, Mapping, Unanswered, VolumeFacts
from oma.ports import Clock, Cloud, UpstreamError, Volumes
from oma.workflow.identity import needs_volume_comparison
from oma.workflow.tracking import SNAPSHOT_NAME, build_snapshot_facts, tracked_ids
from oma.workflow.vm_names import TEST_VM_INFIX, build_test_vm_prefix

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class World:
    """The sides that can be asked, and the clock that dates their answers."""

    cloud: Cloud
    volumes: Volumes
    clock: Clock


async def collect_evidence(
    records: VmRecords, world: World, limits: GuardLimits, timeout_s: float, words: Words = SILENT
) -> Evidence:
    """Asks CloudStack, the Volume Daemon and the OMA about one VM; changes nothing and never raises `UpstreamError`."""
    cloud, volumes = world.cloud, world.volumes
    observed_at = world.clock.now()
    config = choose_config(records)
    oma_vm_id = config.oma_vm_id if config else None
    ids = [volume.volume_id for volume in records.volumes]
    asker = _Asker(timeout_s)
    recorded = _recorded_vm_ids(records, oma_vm_id)
    (listed, devices, snapshots, mappings, vms, vm_snapshots), (own, named, marks, named_vms) = await asyncio.gather(
        asyncio.gather(
            asker.ask("where the volumes are", "CloudStack", cloud.list_volumes(ids)),
            asker.ask("which devices the OMA shows", "Volume Daemon", volumes.scan_devices()),
            asker.ask("the tracked snapshots", "CloudStack", cloud.list_snapshots(tracked_ids(records))),
            asker.ask_each("the mapping of {}", "Volume Daemon", ids, volumes.find_mapping),
            asker.ask("the VMs", "CloudStack", cloud.list_vms(recorded)),
            asker.ask("the VM snapshots", "CloudStack", cloud.list_vm_snapshot_holders(recorded)),
        ),
        asyncio.gather(
            asker.ask_aside("the snapshots of test failovers", "CloudStack", cloud.list_snapshots_named(SNAPSHOT_NAME)),
            asker.ask_aside(
                "the named snapshots", "CloudStack", cloud.list_snapshots([one for _, one in words.snapshots])
            ),
            asker.ask_aside("the markers", "CloudStack", cloud.list_marks()),
            asker.ask_aside("the VMs by name", "CloudStack", _named_vms(cloud, records)),
        ),
    )
    others = [vm_id for vm_id in _holders(listed) if vm_id not in recorded]
    product_uuid = None if isinstance(devices, Unanswered) else devices.product_uuid
    compared = oma_vm_id if needs_volume_comparison(limits.oma_identity, product_uuid) else None
    shown = [] if isinstance(devices, Unanswered) else [one for one in ids if devices.shows(one)]
    other_vms, on_oma, other_vm_snapshots, held = await asyncio.gather(
        asker.ask("the VMs", "CloudStack", cloud.list_vms(others)),
        asker.ask("what hangs on the OMA", "CloudStack", _volume_ids_of_vm(cloud, compared)),
        asker.ask("the VM snapshots", "CloudStack", cloud.list_vm_snapshot_holders(others)),
        asker.ask_each_aside("who holds {}", "Volume Daemon", shown, volumes.list_holders),
    )
    held_by = dict(zip(shown, held, strict=True))
    found = (*_answered(vms), *_answered(other_vms))
    candidates = named_vms if isinstance(named_vms, Unanswered) else tuple(_like_ours(records, named_vms))
    looked_into = sorted({vm.id for vm in _to_look_into(records, found, candidates)})
    histories, contents = await asyncio.gather(
        asker.ask_each_aside("what happened to {}", "CloudStack", looked_into, cloud.list_vm_events),
        asker.ask_each_aside("what hangs on {}", "CloudStack", looked_into, cloud.list_volumes_of_vm),
    )
    return Evidence(
        records=records,
        config=config,
        volumes=tuple(
            _facts(one, listed, mapping, devices, held_by.get(one)) for one, mapping in zip(ids, mappings, strict=True)
        ),
        snapshots=build_snapshot_facts(records, snapshots),
        vms=found,
        devices=devices,
        volumes_on_oma=on_oma,
        unanswered=tuple(dict.fromkeys(asker.unanswered)),
        limits=limits,
        observed_at=observed_at,
        vm_snapshot_holders=(*_answered(vm_snapshots), *_answered(other_vm_snapshots)),
        words=words,
        marks=_of_volumes(marks, (*ids, *tracked_ids(records)), lambda mark: mark.volume_id),
        own_snapshots=_of_volumes(own, ids, lambda snapshot: snapshot.volume_id),
        named_snapshots=named if isinstance(named, Unanswered) else tuple(named),
        named_vms=candidates,
        histories=tuple(
            VmHistory(vm_id, events if isinstance(events, Unanswered) else tuple(events))
            for vm_id, events in zip(looked_into, histories, strict=True)
        ),
        contents=tuple(
            VmContents(vm_id, inside if isinstance(inside, Unanswered) else tuple(inside))
            for vm_id, inside in zip(looked_into, contents, strict=True)
        ),
        had_failed_run=records.last_run_failed,
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


def _named_vms(cloud: Cloud, records: VmRecords) -> Awaitable[Sequence[CloudVm]]:
    """Asked only where a failover may have made a VM that it never recorded."""
    if any(failover.is_open and not failover.destination_vm_id for failover in records.failovers):
        return cloud.list_vms_named(TEST_VM_INFIX)
    return _nothing()


async def _nothing() -> Sequence[CloudVm]:
    return ()


def _like_ours(records: VmRecords, vms: Sequence[CloudVm]) -> Iterator[CloudVm]:
    """Those that carry the name of a failover of this VM, whatever their time stamp."""
    prefix = build_test_vm_prefix(records.context.vm_name)
    for vm in vms:
        if vm.name.startswith(prefix):
            yield vm


def _to_look_into(
    records: VmRecords, vms: Sequence[CloudVm], candidates: Sequence[CloudVm] | Unanswered
) -> Iterator[CloudVm]:
    """VMs whose past or contents decide: named ones, destroyed ones, and destinations of live failovers."""
    if not isinstance(candidates, Unanswered):
        yield from candidates
    live = {one.destination_vm_id for one in records.failovers if one.job_type != "test"}
    for vm in vms:
        if vm.id in live or vm.is_gone:
            yield vm


def _of_volumes(
    found: Sequence[T] | Unanswered, volume_ids: Sequence[str], volume_of: Callable[[T], str | None]
) -> tuple[T, ...] | Unanswered:
    if isinstance(found, Unanswered):
        return found
    return tuple(one for one in found if volume_of(one) in volume_ids)


def _facts(
    volume_id: str,
    listed: Sequence[CloudVolume] | Unanswered,
    mapping: Mapping | Unanswered | None,
    devices: DeviceScan | Unanswered,
    holders: DeviceHolders | Unanswered | None,
) -> VolumeFacts:
    cloud: CloudVolume | Unanswered | None
    if isinstance(listed, Unanswered):
        cloud = listed
    else:
        cloud = next((volume for volume in listed if volume.id == volume_id), None)
    on_oma = devices if isinstance(devices, Unanswered) else devices.shows(volume_id)
    return VolumeFacts(volume_id=volume_id, cloud=cloud, mapping=mapping, on_oma=on_oma, holders=holders)


def _holders(listed: Sequence[CloudVolume] | Unanswered) -> list[str]:
    if isinstance(listed, Unanswered):
        return []
    return sorted({volume.vm_id for volume in listed if volume.vm_id is not None})


def _recorded_vm_ids(records: VmRecords, oma_vm_id: str | None) -> list[str]:
    """The OMA, and the destinations that the newest failover and every open one recorded."""
    destinations = (one.destination_vm_id for one in records.failovers if one.is_open or one is records.failovers[0])
    return sorted({vm_id for vm_id in (oma_vm_id, *destinations) if vm_id})


async def _volume_ids_of_vm(cloud: Cloud, vm_id: str | None) -> tuple[str, ...]:
    if vm_id is None:
        return ()
    return tuple(volume.id for volume in await cloud.list_volumes_of_vm(vm_id))


def _answered(items: Sequence[T] | Unanswered) -> Sequence[T]:
    return () if isinstance(items, Unanswered) else items


class _Asker:
    """Turns every failure to get an answer into an `Unanswered`, and keeps the list of them."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.unanswered: list[Unanswered] = []

    async def ask(self, question: str, asked: str, answer: Awaitable[T]) -> T | Unanswered:
        """For what every clean-up needs to know."""
        said = await self.ask_aside(question, asked, answer)
        if isinstance(said, Unanswered):
            self.unanswered.append(said)
        return said

    async def ask_each(
        self, question: str, asked: str, ids: Sequence[str], answer: Callable[[str], Awaitable[T]]
    ) -> list[T | Unanswered]:
        """`question` holds `{}` for the id."""
        return await asyncio.gather(*(self.ask(question.format(one), asked, answer(one)) for one in ids))

    async def ask_each_aside(
        self, question: str, asked: str, ids: Sequence[str], answer: Callable[[str], Awaitable[T]]
    ) -> list[T | Unanswered]:
        return await asyncio.gather(*(self.ask_aside(question.format(one), asked, answer(one)) for one in ids))

    async def ask_aside(self, question: str, asked: str, answer: Awaitable[T]) -> T | Unanswered:
        """For what only one guard needs to know, and only sometimes: it decides what the silence means."""
        code = None
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError:
            reason = f"no answer within {self._timeout_s:g} s"
        except UpstreamError as error:
            code = error.upstream.code
            reason = f"{code}: {error.upstream.text}"
        return Unanswered(question, asked, reason, code)
