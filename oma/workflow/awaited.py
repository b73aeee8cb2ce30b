"""Disks that await a full copy: a person gave their content up, and no replication has completed since.

Nothing is reverted to under them: their change id is empty, so that the next replication writes every byte anew. What a
guard would say of a revert does not concern them; all that is said of devices, holders and VMs does. Source: section 5
of the safety rules.
"""

from __future__ import annotations

from datetime import datetime

from oma.domain.records import DiskRecord, VmRecords
from oma.domain.states import Replica
from oma.domain.whole_copies import SYNC_TYPE
from oma.workflow.doubt import earliest, utc
from oma.workflow.replicated import disks_of


def resync_is_awaited(records: VmRecords) -> bool:
    """A person gave up the content of a disk, and no replication has begun since and completed."""
    summary = records.context.last_operation_summary or {}
    if summary.get("replica") != Replica.RESYNC_REQUIRED.value:
        return False
    since = _ended_at(records)
    return since is None or not _was_replicated_since(records, since)


def awaits_copy(records: VmRecords, volume_id: str) -> str | None:
    """Why this volume's next replication copies it whole, without a full stop; None where it need not.

    An empty change id alone proves nothing: there has to be a person's word on record as well.
    """
    disks = disks_of(records, volume_id)
    if not disks or any(disk.disk_change_id for disk in disks):
        return None
    demanded = [_demanded_at(records, disk) for disk in disks]
    known = [at for at in demanded if at is not None]
    if len(known) < len(demanded) or _was_replicated_since(records, min(known)):
        return None
    return f"a person gave its content up at {utc(min(known))}, and the next replication copies it whole"


def _demanded_at(records: VmRecords, disk: DiskRecord) -> datetime | None:
    """The demand stands in the disk's history; of a VM without any replication only in its last summary."""
    if not records.replications:
        return _ended_at(records) if resync_is_awaited(records) else None
    own = (row for row in records.change_ids if row.disk_id == disk.disk_id)
    newest = next((row for row in own if row.change_id or row.sync_type == SYNC_TYPE), None)
    return newest.stored_at if newest is not None and not newest.change_id else None


def _ended_at(records: VmRecords) -> datetime | None:
    ended = (records.context.last_operation_summary or {}).get("ended_at")
    return datetime.fromisoformat(ended) if isinstance(ended, str) else None


def _was_replicated_since(records: VmRecords, since: datetime) -> bool:
    done = (row.started_at for row in records.replications if row.status == "completed" and row.started_at is not None)
    return any(earliest(records, at) > since for at in done)
