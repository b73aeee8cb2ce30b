"""Which snapshot a volume goes back to, and whether that snapshot fits: pure, used in analysis and before each revert.

Source of the rules: section 5 of the safety rules. CloudStack itself checks neither the snapshot's state nor, because
a revert takes only the snapshot's id, whose volume it overwrites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from oma.domain.evidence import Evidence, SnapshotFacts
from oma.domain.records import VmRecords
from oma.domain.world import CloudSnapshot, CloudVolume, Unanswered

BACKED_UP = "BackedUp"


@dataclass(frozen=True, slots=True)
class SnapshotChoice:
    """The one snapshot that fits, or why there is none. `dead` ids are tracked, but CloudStack lists them no more."""

    snapshot: CloudSnapshot | None
    missing: bool
    problems: tuple[str, ...]
    dead: tuple[str, ...]
    evidence: dict[str, Any]


def choose_snapshot(evidence: Evidence, volume: CloudVolume) -> SnapshotChoice:
    """Checks every id that any of the tracking places names; exactly one that passes is the snapshot."""
    tracked = evidence.snapshots_of(volume.id)
    listed = [facts for facts in tracked if isinstance(facts.cloud, CloudSnapshot)]
    dead = tuple(facts.snapshot_id for facts in tracked if facts.cloud is None)
    not_before = oldest_failover_at(evidence.records)
    held = volume.vm_id is not None and volume.vm_id in evidence.vm_snapshot_holders
    passed: list[CloudSnapshot] = []
    problems: list[str] = []
    for facts in listed:
        snapshot = facts.cloud
        if not isinstance(snapshot, CloudSnapshot):
            continue
        found = snapshot_problems(snapshot, volume, not_before=not_before, vm_snapshot_on_holder=held)
        problems.extend(found)
        if not found:
            passed.append(snapshot)
    if len(passed) > 1:
        problems.append(f"Two snapshots fit {volume.name}: {', '.join(snapshot.id for snapshot in passed)}.")
    return SnapshotChoice(
        snapshot=passed[0] if len(passed) == 1 else None,
        missing=not listed,
        problems=tuple(problems),
        dead=dead,
        evidence=_sides(volume, tracked),
    )


def snapshot_problems(
    snapshot: CloudSnapshot, volume: CloudVolume, *, not_before: datetime | None, vm_snapshot_on_holder: bool
) -> list[str]:
    """Why this snapshot may not be reverted to; empty when nothing speaks against it. One sentence per reason."""
    problems: list[str] = []
    name = f"Snapshot {snapshot.id}"
    if snapshot.volume_id != volume.id:
        problems.append(
            f"{name} is tracked for {volume.name} ({volume.id}), "
            f"but CloudStack shows it on volume {snapshot.volume_id}."
        )
    if snapshot.state != BACKED_UP:
        problems.append(f"{name} of {volume.name} is {snapshot.state}, not {BACKED_UP}.")
    if snapshot.created is None:
        problems.append(f"{name} of {volume.name} carries no creation time.")
    elif not_before is not None and snapshot.created < not_before:
        problems.append(
            f"{name} of {volume.name} was made {snapshot.created.isoformat()}, before the oldest failover since the "
            f"last completed replication ({not_before.isoformat()})."
        )
    if snapshot.size_bytes is not None and snapshot.size_bytes != volume.size_bytes:
        problems.append(
            f"{name} is {snapshot.size_bytes} bytes, {volume.name} is {volume.size_bytes}; a revert would resize it."
        )
    if snapshot.revertable is False:
        problems.append(f"CloudStack says that {name.lower()} of {volume.name} can't be reverted to.")
    if vm_snapshot_on_holder:
        problems.append(f"The VM that holds {volume.name} carries a VM snapshot; CloudStack then refuses a revert.")
    return problems


def oldest_failover_at(records: VmRecords) -> datetime | None:
    """When the oldest failover since the last completed replication or clean-up began; None without a dated one."""
    floor = max((at for at in (_last_replication_at(records), last_cleanup_at(records)) if at), default=None)
    begun = [failover.created_at or failover.started_at for failover in records.failovers]
    times = [at for at in begun if at is not None and (floor is None or at >= floor)]
    return min(times, default=None)


def replications_since(records: VmRecords, snapshot_at: datetime) -> list[str]:
    """Sentences about replications that started or ended after the snapshot was made."""
    found: list[str] = []
    for replication in records.replications:
        for verb, at in (("started", replication.started_at), ("ended", replication.completed_at)):
            if at is not None and at > snapshot_at:
                found.append(f"Replication {replication.id} {verb} at {at.isoformat()}, after the snapshot.")
                break
    return found


def replication_problems(records: VmRecords, snapshots: Sequence[CloudSnapshot]) -> list[str]:
    """Why nothing may be reverted now: a replication runs, or one ran since the oldest of the snapshots."""
    problems = [
        f"Replication {replication.id} is {replication.status}; nothing is reverted under it."
        for replication in records.replications
        if replication.is_open
    ]
    made = [snapshot.created for snapshot in snapshots if snapshot.created is not None]
    return problems or (replications_since(records, min(made)) if made else [])


def _last_replication_at(records: VmRecords) -> datetime | None:
    ends = [row.completed_at for row in records.replications if row.status == "completed" and row.completed_at]
    return max(ends, default=None)


def last_cleanup_at(records: VmRecords) -> datetime | None:
    """When a clean-up of ours last reset the records: everything before it is settled by proven reverts."""
    summary = records.context.last_operation_summary or {}
    at = summary.get("completed_at")
    if summary.get("operation") != "failed-execution-cleanup" or not isinstance(at, str):
        return None
    try:
        return datetime.fromisoformat(at)
    except ValueError:
        return None


def _sides(volume: CloudVolume, tracked: tuple[SnapshotFacts, ...]) -> dict[str, Any]:
    return {
        "volume_id": volume.id,
        "volume_size_bytes": volume.size_bytes,
        "tracked": [
            {"snapshot_id": facts.snapshot_id, "tracked_in": list(facts.tracked_in), "cloudstack": _cloud_side(facts)}
            for facts in tracked
        ],
    }


def _cloud_side(facts: SnapshotFacts) -> dict[str, Any] | str:
    snapshot = facts.cloud
    if snapshot is None:
        return "not listed"
    if isinstance(snapshot, Unanswered):
        return snapshot.reason
    return {
        "volume_id": snapshot.volume_id,
        "state": snapshot.state,
        "created": snapshot.created.isoformat() if snapshot.created else None,
        "size_bytes": snapshot.size_bytes,
    }
