"""What a replication did to a volume after its snapshot was made: a revert would then fall behind its change id.

The next replication copies only what changed since `vm_disks.disk_change_id`; a disk that is older than that is
corrupted by it, silently. Source of the rule: section 5 of the safety rules.

CloudStack dates snapshots to the second, and so do some rows: what carries the very time of the snapshot may be later.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from oma.domain.records import DiskRecord, ReplicationRecord, VmRecords
from oma.domain.world import CloudSnapshot

COPY_WHOLE: Final = (
    "Don't revert: the next increment would corrupt the disk silently. Plan a full copy from the source."
)
"""What a person does then."""


def made_at(records: VmRecords, snapshot: CloudSnapshot) -> datetime | None:
    """When a snapshot was made, for comparisons with the records: CloudStack's word, or theirs where that is earlier.

    Two clocks, and the zone in which the rows are read, may disagree; the rows are of one mind among themselves. None
    where CloudStack does not date it.
    """
    if snapshot.created is None:
        return None
    noted = (
        volume.snapshot_created_at
        for volume in records.volumes
        if volume.snapshot_id == snapshot.id and volume.volume_id == snapshot.volume_id
    )
    return min((snapshot.created, *(at for at in noted if at is not None)))


def replicated_since(records: VmRecords, volume_id: str, snapshot_at: datetime) -> list[str]:
    """Sentences about replications that started or ended after the snapshot, and about change ids stored after it."""
    return [*replications_since(records, snapshot_at), *change_ids_since(records, volume_id, snapshot_at)]


def replications_since(records: VmRecords, snapshot_at: datetime) -> list[str]:
    """Of each replication the first sign that it was at work then; a row that does not date it counts by its touch."""
    signs = (_sign_since(replication, snapshot_at) for replication in records.replications)
    return [sign for sign in signs if sign is not None]


def _sign_since(replication: ReplicationRecord, snapshot_at: datetime) -> str | None:
    for verb, at in (("started", replication.started_at), ("ended", replication.completed_at)):
        if at is not None and at >= snapshot_at:
            return f"Replication {replication.id} {verb} at {at.isoformat()}, {_after(at, snapshot_at)}."
    if replication.completed_at is not None:
        return None
    # It ended, or died, at a time that nobody wrote down: not later than its row was last touched.
    touched = replication.last_touched_at
    if touched is not None and touched < snapshot_at:
        return None
    when = "nothing dates its row"
    if touched is not None:
        when = f"its row was touched at {touched.isoformat()}, {_after(touched, snapshot_at)}"
    return f"When replication {replication.id} ended is not recorded; {when}."


def change_ids_since(records: VmRecords, volume_id: str, snapshot_at: datetime) -> list[str]:
    """A change id counts as stored after the snapshot on either of two proofs.

    A row of `cbt_history` with a change id that was written after it; or `vm_disks.disk_change_id` is one that neither
    the disk's history nor a replication had stored when the snapshot was made, and its row was written after that.
    `updated_at` alone proves nothing, because progress is written there too; nor does a disk without any history, with
    which nothing can be compared. A row without a change id stores none.
    """
    found: list[str] = []
    disks = {disk.disk_id: disk for disk in disks_of(records, volume_id)}
    known = {disk.disk_id for disk in records.disks}
    for row in records.change_ids:
        concerns = row.disk_id in disks or row.disk_id not in known
        if concerns and row.change_id and (row.stored_at is None or row.stored_at >= snapshot_at):
            when = "at an unknown time"
            if row.stored_at is not None:
                when = f"at {row.stored_at.isoformat()}, {_after(row.stored_at, snapshot_at)}"
            found.append(f"The change id {row.change_id} of {row.disk_id or 'a disk'} was stored {when}.")
            break
    for disk in disks.values():
        if not found and _was_changed_since(records, disk, snapshot_at) and disk.updated_at is not None:
            found.append(
                f"{disk.disk_id} carries the change id {disk.disk_change_id}, which no replication had stored when the "
                f"snapshot was made; its row was written at {disk.updated_at.isoformat()}."
            )
    return found


def _after(at: datetime, snapshot_at: datetime) -> str:
    return "after the snapshot" if at > snapshot_at else "in the very second of the snapshot"


def disks_of(records: VmRecords, volume_id: str) -> list[DiskRecord]:
    rows = {volume.id for volume in records.volumes if volume.volume_id == volume_id}
    return [disk for disk in records.disks if disk.ossea_volume_id in rows]


def _was_changed_since(records: VmRecords, disk: DiskRecord, snapshot_at: datetime) -> bool:
    if not disk.disk_change_id or disk.updated_at is None or disk.updated_at < snapshot_at:
        return False
    history = {row.change_id for row in records.change_ids if row.disk_id == disk.disk_id and row.change_id}
    replicated = {replication.change_id for replication in records.replications}
    return bool(history) and disk.disk_change_id not in history | replicated
