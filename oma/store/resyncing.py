"""A disk that went home without a proven revert: its change id is emptied, so that it is copied whole."""

from __future__ import annotations

from sqlalchemy import insert, select, update

from database.tables import cbt_history, ossea_volumes, replication_jobs, vm_disks
from oma.domain.changes import ResyncDemanded
from oma.domain.errors import ConcurrentChange
from oma.domain.events import EventType
from oma.domain.states import LogLevel, Phase
from oma.domain.whole_copies import SYNC_TYPE
from oma.store.events import Draft
from oma.store.writing import Writing


def demand_resync(writing: Writing, change: ResyncDemanded) -> Draft:
    """In every row of the disks; `cbt_history` says why where the VM has a replication that it can stand under."""
    if change.context_id != writing.context_id:
        raise ConcurrentChange(f"job {writing.job_id} is about {writing.context_id}, not about {change.context_id}")
    connection, disks = writing.connection, vm_disks.c
    rows = select(ossea_volumes.c.id).where(ossea_volumes.c.volume_id.in_(change.volume_ids))
    query = (
        select(disks.id, disks.disk_id, disks.disk_change_id).where(disks.ossea_volume_id.in_(rows)).order_by(disks.id)
    )
    found = connection.execute(query.with_for_update()).all()
    connection.execute(
        update(vm_disks).where(disks.id.in_([row.id for row in found])).values(disk_change_id="", updated_at=writing.at)
    )
    job_id = _last_replication(writing)
    if job_id is not None and found:
        connection.execute(
            insert(cbt_history),
            [
                {
                    "job_id": job_id,
                    "disk_id": disk_id,
                    "change_id": "",
                    "previous_change_id": former,
                    "sync_type": SYNC_TYPE,
                    "sync_success": False,
                    "created_at": writing.at,
                }
                for disk_id, former in {row.disk_id: row.disk_change_id for row in found}.items()
            ],
        )
    where = "" if job_id else " The VM has no replication in whose history this could stand."
    former = {row.disk_id: row.disk_change_id for row in found}
    return Draft(
        EventType.RESYNC_DEMANDED,
        f"{change.sentence}{where}",
        {"volume_ids": list(change.volume_ids), "former_change_ids": former, "replication_id": job_id},
        level=LogLevel.WARN,
        phase=Phase.RESET,
    )


def _last_replication(writing: Writing) -> str | None:
    """The VM's newest one; a row without a start counts as the oldest."""
    table = replication_jobs.c
    query = (
        select(table.id)
        .where(table.vm_context_id == writing.context_id)
        .order_by(table.started_at.desc(), table.id.desc())
        .limit(1)
    )
    found: str | None = writing.connection.execute(query).scalar()
    return found
