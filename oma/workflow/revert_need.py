"""Whether a volume needs a revert: yes, unless it can be excluded that anything but the replication wrote to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oma.domain.actions import Action, ActionKind
from oma.domain.evidence import Evidence
from oma.domain.records import FailoverRecord
from oma.domain.states import VolumePlace
from oma.domain.world import Mapping, VolumeFacts
from oma.workflow.snapshot_rules import last_cleanup_at

WRITING_STEPS: Final = frozenset(
    {"virtio-driver-injection", "vm-creation", "volume-attachment", "vm-startup-and-validation"}
)
"""Steps of a failover after which a disk may have been written to or may have left the OMA."""


@dataclass(frozen=True, slots=True)
class RevertNeed:
    needed: bool
    reason: str


def revert_need(evidence: Evidence, facts: VolumeFacts, place: VolumePlace) -> RevertNeed:
    """Judged from where the volume is, its mapping, and the steps that its failovers wrote."""
    proven = proven_revert(evidence, facts.volume_id)
    if proven is not None and place in (VolumePlace.DETACHED, VolumePlace.ON_OMA):
        return RevertNeed(needed=False, reason=f"reverted already by job {proven.job_id} (action {proven.id})")
    if place is not VolumePlace.ON_OMA:
        return RevertNeed(needed=True, reason=f"it is {place.value}, so it left the OMA")
    if facts.on_oma is not True:
        return RevertNeed(needed=True, reason="the OMA does not show its device")
    if not isinstance(facts.mapping, Mapping):
        return RevertNeed(needed=True, reason="the Volume Daemon has no mapping for it")
    if facts.mapping.operation_mode == "failover":
        return RevertNeed(needed=True, reason="its mapping stands at failover")
    return _need_by_failovers(evidence)


def proven_revert(evidence: Evidence, volume_id: str) -> Action | None:
    """The revert of an earlier partial run that was proven, unless a failover has begun since."""
    found: Action | None = None
    for action in evidence.records.proven:
        if action.target.volume_id == volume_id and action.kind is ActionKind.REVERT_SNAPSHOT:
            found = action
    if found is None or found.ended_at is None:
        return None
    begun = [failover.created_at or failover.started_at for failover in evidence.records.failovers]
    return None if any(at is not None and at > found.ended_at for at in begun) else found


def _need_by_failovers(evidence: Evidence) -> RevertNeed:
    records = evidence.records
    failovers = [failover for failover in records.failovers if not _is_settled(evidence, failover)]
    if not failovers:
        return RevertNeed(needed=False, reason="no failover since the last completed replication or clean-up")
    for failover in failovers:
        log = records.joblog_of(failover)
        if log is None:
            return RevertNeed(needed=True, reason=f"failover {failover.job_id} left no JobLog to exclude a write by")
        written = sorted(WRITING_STEPS.intersection(log.step_names))
        if written:
            return RevertNeed(needed=True, reason=f"failover {failover.job_id} reached {written[0]}")
    return RevertNeed(needed=False, reason="it never left the OMA and no failover reached a step that writes to it")


def _is_settled(evidence: Evidence, failover: FailoverRecord) -> bool:
    """A clean-up of ours ended it, or a completed replication that began after its end made the disk good again."""
    ended = failover.completed_at
    if failover.is_open or ended is None:
        return False
    begun, cleaned = failover.created_at or failover.started_at, last_cleanup_at(evidence.records)
    if begun is not None and cleaned is not None and begun < cleaned:
        return True
    return any(
        row.status == "completed" and row.started_at is not None and row.started_at >= ended
        for row in evidence.records.replications
    )
