"""Whether a VM needs a clean-up, as the list, the page and the watcher say it: one function."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oma.domain.evidence import GuardLimits
from oma.domain.records import CLEANUP_REQUIRED, VmRecords
from oma.workflow.life import failover_life


@dataclass(frozen=True, slots=True)
class Need:
    """`recommended` says whether the button is offered; `why` is one sentence either way."""

    recommended: bool
    why: str
    reasons: tuple[str, ...]


def needs_cleanup(records: VmRecords, now: datetime, limits: GuardLimits) -> Need:
    """Judged from the records; the guards decide with the world's own word when a run is asked for."""
    reasons = tuple(trouble_in(records, now, limits))
    if not reasons:
        return Need(recommended=False, why="Nothing is left of a failover.", reasons=())
    obstacle = _obstacle(records, now, limits)
    return Need(recommended=obstacle is None, why=obstacle or reasons[0], reasons=reasons)


def _obstacle(records: VmRecords, now: datetime, limits: GuardLimits) -> str | None:
    """Why a VM in trouble is not offered a clean-up now."""
    if records.open_issue_ids:
        return "An open issue has to be resolved first."
    if records.active_job_id is not None:
        return "A clean-up is running."
    newest = records.newest_failover
    if newest is None:
        return None
    if newest.job_type == "live":
        return "The newest failover is a live failover."
    life = failover_life(records, newest, now, limits)
    if life.alive:
        return life.sentence
    return "A finished test failover is in use." if life.finished else None


def trouble_in(records: VmRecords, now: datetime, limits: GuardLimits) -> list[str]:
    """What speaks for a clean-up, most telling first."""
    reasons: list[str] = []
    newest = records.newest_failover
    if newest is not None and newest.is_open:
        life = failover_life(records, newest, now, limits)
        if not life.alive and not life.finished:
            reasons.append(f"The {newest.job_type} failover {newest.job_id} is open: {life.sentence}")
    if records.context.current_status == CLEANUP_REQUIRED:
        reasons.append("The status is cleanup_required.")
    tracked = tracked_snapshots(records)
    if tracked:
        reasons.append(f"{len(tracked)} snapshot{'s are' if len(tracked) > 1 else ' is'} still tracked.")
    away = [mapping.volume_uuid for mapping in records.mappings if mapping.operation_mode == "failover"]
    mapped = {mapping.volume_uuid for mapping in records.mappings}
    missing = [volume.volume_id for volume in records.volumes if volume.volume_id not in mapped]
    if newest is not None and (away or missing):
        count = len(away) + len(missing)
        reasons.append(f"{count} volume{'s are' if count > 1 else ' is'} not mapped at the OMA.")
    return reasons


def tracked_snapshots(records: VmRecords) -> frozenset[str]:
    """Every snapshot id that one of the three tracking places names."""
    ids = {volume.snapshot_id for volume in records.volumes}
    ids |= {mapping.ossea_snapshot_id for mapping in records.mappings}
    ids |= {failover.ossea_snapshot_id for failover in records.failovers if failover.is_open}
    return frozenset(snapshot_id for snapshot_id in ids if snapshot_id)
