"""Whether a volume needs a revert: yes, unless it can be excluded that anything but the replication wrote to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from oma.domain.actions import Action, ActionKind
from oma.domain.evidence import Evidence
from oma.domain.holders import DeviceHolders
from oma.domain.records import FailoverRecord
from oma.domain.states import VolumePlace
from oma.domain.world import CloudSnapshot, CloudVolume, Mapping, Unanswered, VolumeFacts
from oma.workflow.awaited import awaits_copy
from oma.workflow.doubt import earliest
from oma.workflow.since import begun_at, last_cleanup_at, to_the_second
from oma.workflow.tracking import is_ours_by_name

INJECTION_STEP: Final = "virtio-driver-injection"
MOVING_STEPS: Final = frozenset({"vm-creation", "volume-attachment", "vm-startup-and-validation"})
"""Steps of a failover from which on a disk may have left the OMA."""
CLOCKS_AGREE: Final = timedelta(seconds=120)
"""How far CloudStack's clock and the database's may be apart."""
AT_THE_OMA: Final = "oma"
"""The mapping's mode of a volume that hangs on the OMA; every other one says, or may say, that it left."""


@dataclass(frozen=True, slots=True)
class RevertNeed:
    needed: bool
    reason: str
    awaits_copy: bool = False
    """Its content is given up: it needs no revert, and is good only after a full copy."""

    @property
    def in_doubt(self) -> bool:
        """Nobody may write to it unseen: a revert or a full copy is about to make it good."""
        return self.needed or self.awaits_copy


def revert_need(evidence: Evidence, facts: VolumeFacts, place: VolumePlace) -> RevertNeed:
    """Judged from where the volume is, who holds it, its mapping, and the steps that its failovers wrote."""
    given_up = awaits_copy(evidence.records, facts.volume_id)
    if given_up is not None:
        return RevertNeed(needed=False, reason=given_up, awaits_copy=True)
    holder = _foreign_holder(evidence, facts)
    if holder is not None:
        return RevertNeed(needed=True, reason=f"{holder} holds its device while a failover is open")
    undone = undone_detach(evidence, facts.volume_id)
    proven = proven_revert(evidence, facts.volume_id)
    if undone is not None and proven is not None and _is_older(undone, proven):
        undone = None
    if undone is None and proven is not None and place in (VolumePlace.DETACHED, VolumePlace.ON_OMA):
        return RevertNeed(needed=False, reason=f"reverted already by job {proven.job_id} (action {proven.id})")
    if undone is not None:
        reason = f"job {undone.job_id} detached it and put it back unreverted (action {undone.id})"
        return RevertNeed(needed=True, reason=reason)
    if place is not VolumePlace.ON_OMA:
        return RevertNeed(needed=True, reason=f"it is {place.value}, so it left the OMA")
    if facts.on_oma is not True:
        return RevertNeed(needed=True, reason="the OMA does not show its device")
    if not isinstance(facts.mapping, Mapping):
        return RevertNeed(needed=True, reason="the Volume Daemon has no mapping for it")
    if facts.mapping.operation_mode != AT_THE_OMA:
        return RevertNeed(needed=True, reason=f"its mapping stands at {facts.mapping.operation_mode or 'no mode'}")
    return _need_by_failovers(evidence, facts)


def proven_revert(evidence: Evidence, volume_id: str) -> Action | None:
    """The revert of an earlier partial run that was proven, unless a failover has begun since."""
    found: Action | None = None
    for action in evidence.records.proven:
        if action.target.volume_id == volume_id and action.kind is ActionKind.REVERT_SNAPSHOT:
            found = action
    if found is None or found.ended_at is None:
        return None
    ended = to_the_second(found.ended_at)
    begun = [begun_at(failover) for failover in evidence.records.failovers]
    return None if any(at is not None and at >= ended for at in begun) else found


def _is_older(one: Action, other: Action) -> bool:
    return one.ended_at is not None and other.ended_at is not None and one.ended_at < other.ended_at


def undone_detach(evidence: Evidence, volume_id: str) -> Action | None:
    """The detach of a run that went back, unless a completed replication that began afterwards made the disk good.

    What showed then that it needed a revert may no longer show: it hangs on the OMA, mapped and seen.
    """
    found = next((one for one in reversed(evidence.records.undone) if one.target.volume_id == volume_id), None)
    at = found.ended_at if found is not None else None
    if at is None:
        return found
    copied = any(
        row.status == "completed" and row.started_at is not None and earliest(evidence.records, row.started_at) > at
        for row in evidence.records.replications
    )
    return None if copied else found


def _foreign_holder(evidence: Evidence, facts: VolumeFacts) -> str | None:
    """Whoever holds the device beside the export and its clients may have written, or may still."""
    if not isinstance(facts.holders, DeviceHolders) or not any(one.is_open for one in evidence.records.failovers):
        return None
    # Since when it runs is told to the second, and a plan must not go stale by that.
    return next((replace(holder, since=None).sentence for holder in facts.holders.others), None)


def _need_by_failovers(evidence: Evidence, facts: VolumeFacts) -> RevertNeed:
    records = evidence.records
    failovers = [failover for failover in records.failovers if not _is_settled(evidence, failover)]
    if not failovers:
        return RevertNeed(needed=False, reason="no failover since the last completed replication or clean-up")
    stayed = _attachment_before(evidence, facts, failovers)
    for failover in failovers:
        log = records.joblog_of(failover)
        if log is None:
            return RevertNeed(needed=True, reason=f"failover {failover.job_id} left no JobLog to exclude a write by")
        if INJECTION_STEP in log.step_names:
            return RevertNeed(needed=True, reason=f"failover {failover.job_id} reached {INJECTION_STEP}")
        moved = sorted(MOVING_STEPS.intersection(log.step_names))
        if moved and stayed is None:
            return RevertNeed(needed=True, reason=f"failover {failover.job_id} reached {moved[0]}")
    if any(MOVING_STEPS.intersection(log.step_names) for log in records.joblog) and stayed is not None:
        return RevertNeed(needed=False, reason=f"it never left the OMA: {stayed}, and no failover injected drivers")
    return RevertNeed(needed=False, reason="it never left the OMA and no failover reached a step that writes to it")


def _attachment_before(evidence: Evidence, facts: VolumeFacts, failovers: list[FailoverRecord]) -> str | None:
    """CloudStack's word that the volume hangs on the OMA since before any of these failovers; None where it has none.

    CloudStack dates every attachment anew. The failover's time is the database's, whose zone may be mistaken, so that
    the attachment must be older than every snapshot of ours on this VM as well: those carry CloudStack's own time.
    """
    volume = facts.cloud
    if (
        not isinstance(volume, CloudVolume)
        or volume.attached_at is None
        or isinstance(evidence.own_snapshots, Unanswered)
    ):
        return None
    tracked = [one.cloud for one in evidence.snapshots if isinstance(one.cloud, CloudSnapshot)]
    made = [one.created for one in (*tracked, *(one for one in evidence.own_snapshots if is_ours_by_name(one)))]
    begun = [earliest(evidence.records, begun_at(failover)) for failover in failovers]
    at = volume.attached_at
    before_all = all(one is not None and at + CLOCKS_AGREE < one for one in begun)
    if not before_all or not all(one is not None and at < one for one in made):
        return None
    return f"CloudStack shows it attached since {at.isoformat()}"


def _is_settled(evidence: Evidence, failover: FailoverRecord) -> bool:
    """A clean-up of ours ended it, or a completed replication that began after its end made the disk good again."""
    records, ended = evidence.records, failover.completed_at
    if failover.is_open or ended is None:
        return False
    begun, cleaned = begun_at(failover), last_cleanup_at(records)
    if begun is not None and cleaned is not None and begun < to_the_second(cleaned):
        return True
    return any(
        row.status == "completed" and row.started_at is not None and earliest(records, row.started_at) > ended
        for row in records.replications
    )
