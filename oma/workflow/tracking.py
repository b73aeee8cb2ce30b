"""Where the records track a snapshot, and whose it is: three places, of which one names no volume.

Source of the places: `ossea_volumes.snapshot_id`, in older installations `device_mappings.ossea_snapshot_id` or
`failover_jobs.ossea_snapshot_id`. What no place names is known by its name alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from oma.domain.evidence import Evidence, SnapshotFacts
from oma.domain.records import VmRecords
from oma.domain.world import CloudSnapshot, Unanswered
from oma.workflow.since import failovers_since

IN_VOLUMES: Final = "ossea_volumes"
IN_MAPPINGS: Final = "device_mappings"
IN_FAILOVERS: Final = "failover_jobs"
SNAPSHOT_NAME: Final = "test-failover-"
"""Part of the name of every snapshot that a test failover makes."""
OWN_NAMES: Final = ("test-failover-", "multi-test-failover-")
"""How the names of the snapshots begin that a test failover makes."""


def tracked_by_volume(records: VmRecords) -> dict[str, dict[str, list[str]]]:
    """Snapshot id → volume id → the places that name it for that volume."""
    tracked: dict[str, dict[str, list[str]]] = {}
    for volume in records.volumes:
        if volume.snapshot_id:
            tracked.setdefault(volume.snapshot_id, {}).setdefault(volume.volume_id, []).append(IN_VOLUMES)
    for mapping in records.mappings:
        if mapping.ossea_snapshot_id:
            places = tracked.setdefault(mapping.ossea_snapshot_id, {})
            places.setdefault(mapping.volume_uuid, []).append(IN_MAPPINGS)
    return tracked


def tracked_by_failovers(records: VmRecords) -> tuple[str, ...]:
    """Ids that an open failover names, or any since the last completed replication or clean-up."""
    since = failovers_since(records)
    ids = [one.ossea_snapshot_id for one in records.failovers if one.is_open or one in since]
    return tuple(dict.fromkeys(snapshot_id for snapshot_id in ids if snapshot_id))


def tracked_ids(records: VmRecords) -> tuple[str, ...]:
    """Every snapshot id that one of the three places names."""
    return tuple(dict.fromkeys((*tracked_by_volume(records), *tracked_by_failovers(records))))


def build_snapshot_facts(records: VmRecords, listed: Sequence[CloudSnapshot] | Unanswered) -> tuple[SnapshotFacts, ...]:
    """One per id and volume. What a failover names belongs to the volume that CloudStack shows it on.

    Where CloudStack lists it no more, or on none of this VM's volumes, only what the other places say is known of it;
    without them it is nobody's (`volume_id` None).
    """
    tracked = tracked_by_volume(records)
    unassigned: list[str] = []
    by_id = {} if isinstance(listed, Unanswered) else {snapshot.id: snapshot for snapshot in listed}
    own = {volume.volume_id for volume in records.volumes}
    for snapshot_id in tracked_by_failovers(records):
        snapshot = by_id.get(snapshot_id)
        owner = snapshot.volume_id if snapshot is not None else None
        if owner is not None and owner in own:
            tracked.setdefault(snapshot_id, {}).setdefault(owner, []).append(IN_FAILOVERS)
        elif snapshot_id in tracked:
            for places in tracked[snapshot_id].values():
                places.append(IN_FAILOVERS)
        else:
            unassigned.append(snapshot_id)

    def cloud(snapshot_id: str) -> CloudSnapshot | Unanswered | None:
        return listed if isinstance(listed, Unanswered) else by_id.get(snapshot_id)

    assigned = (
        SnapshotFacts(volume_id, snapshot_id, tuple(places), cloud(snapshot_id))
        for snapshot_id, by_volume in tracked.items()
        for volume_id, places in by_volume.items()
    )
    return (*assigned, *(SnapshotFacts(None, one, (IN_FAILOVERS,), cloud(one)) for one in unassigned))


def is_ours_by_name(snapshot: CloudSnapshot) -> bool:
    return snapshot.name.startswith(OWN_NAMES)


def untracked(evidence: Evidence, volume_id: str | None = None) -> Iterator[CloudSnapshot]:
    """Snapshots on this VM's volumes (or on this one) that are ours by their name and that no place tracks there."""
    if isinstance(evidence.own_snapshots, Unanswered):
        return
    known = {(facts.snapshot_id, facts.volume_id) for facts in evidence.snapshots}
    for snapshot in evidence.own_snapshots:
        of_volume = volume_id is None or snapshot.volume_id == volume_id
        if of_volume and is_ours_by_name(snapshot) and (snapshot.id, snapshot.volume_id) not in known:
            yield snapshot


def ours_on(evidence: Evidence, volume_id: str) -> tuple[CloudSnapshot, ...]:
    """Every snapshot of ours that CloudStack shows on this volume, tracked or known by its name."""
    tracked = [facts.cloud for facts in evidence.snapshots if isinstance(facts.cloud, CloudSnapshot)]
    found = {one.id: one for one in (*untracked(evidence, volume_id), *tracked) if one.volume_id == volume_id}
    return tuple(found.values())
