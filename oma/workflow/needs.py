"""Whether a VM needs a clean-up, as the list, the page and the watcher say it: one function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from oma.domain.evidence import GuardLimits
from oma.domain.records import CLEANUP_REQUIRED, VmRecords
from oma.workflow.awaited import resync_is_awaited
from oma.workflow.life import failover_life, is_recently_touched, job_life
from oma.workflow.live import judged_live_failovers, may_have_started
from oma.workflow.observe import choose_config
from oma.workflow.since import last_cleanup_at
from oma.workflow.whole import record_problems


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
    """Why a VM in trouble is not offered a clean-up now: the first of the guards that the records alone let us ask."""
    if records.open_issue_ids:
        return "An open issue has to be resolved first."
    if records.active_job_id is not None:
        return "A clean-up is running."
    if records.world_issue_ids:
        return "A destroyed VM holds one of its volumes; recover that VM first, as its open issue says."
    if resync_is_awaited(records):
        return "A full resync is awaited."
    found = (
        *_live(records),
        *_finished_test(records, now, limits),
        *_alive(records, now, limits),
        *record_problems(records),
        *_unknown_oma(records),
    )
    return found[0] if found else None


def _live(records: VmRecords) -> Iterator[str]:
    for failover in judged_live_failovers(records):
        which = "newest" if failover is records.newest_failover else "open"
        reached = may_have_started(records, failover)
        if reached is not None:
            yield f"The {which} failover is a live failover, and it {reached}."
        elif failover.destination_vm_id:
            yield f"The {which} failover is a live failover that made a VM; whether it was started is asked in a run."


def _finished_test(records: VmRecords, now: datetime, limits: GuardLimits) -> Iterator[str]:
    """One that recorded a VM; whether that VM is still there only CloudStack knows, unless we ended the drill."""
    newest = records.newest_failover
    if newest is None or newest.job_type != "test" or not newest.destination_vm_id:
        return
    begun, cleaned = newest.created_at or newest.started_at, last_cleanup_at(records)
    ended_by_us = not newest.is_open and begun is not None and cleaned is not None and begun < cleaned
    if failover_life(records, newest, now, limits).finished and not ended_by_us:
        yield "A finished test failover is in use."


def _alive(records: VmRecords, now: datetime, limits: GuardLimits) -> Iterator[str]:
    lives = [failover_life(records, one, now, limits) for one in records.failovers if one.is_open]
    lives += [job_life(job, now, limits) for job in records.running_jobs]
    yield from (life.sentence for life in lives if life.alive)
    for replication in records.replications:
        if is_recently_touched(replication, now, limits):
            yield f"Replication {replication.id} is {replication.status} and alive."


def _unknown_oma(records: VmRecords) -> Iterator[str]:
    if choose_config(records) is None:
        yield "Which OMA its volumes belong to can't be told: they name several configurations, or none is active."


def trouble_in(records: VmRecords, now: datetime, limits: GuardLimits) -> list[str]:
    """What speaks for a clean-up, most telling first."""
    reasons: list[str] = []
    newest = records.newest_failover
    if newest is not None and newest.is_open:
        life = failover_life(records, newest, now, limits)
        if not life.alive:
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
