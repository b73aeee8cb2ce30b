"""Whether a failover, a rollback, another job or a replication is alive: never told from its own row alone.

Source: existing installations leave `failover_jobs.status` at `pending` during nearly the whole failover; section 2 of
the safety rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from oma.domain.evidence import Evidence, GuardLimits
from oma.domain.holders import DeviceHolders
from oma.domain.records import FailoverRecord, JobLogRecord, ReplicationRecord, VmRecords
from oma.domain.world import CloudVolume
from oma.workflow.doubt import utc

REVERTING: Final = frozenset({"reverting", "cleanup"})
"""What a failover's row says once somebody began to take it back: it is no finished test any more."""


@dataclass(frozen=True, slots=True)
class Life:
    """`finished`: it ended well, so what it made may be in use. `sentence` holds the evidence, or "dead since …"."""

    alive: bool
    finished: bool
    sentence: str


def failover_life(
    records: VmRecords, failover: FailoverRecord, now: datetime, limits: GuardLimits, pending: tuple[str, ...] = ()
) -> Life:
    """`pending`: sentences about CloudStack jobs that are under way on its VM or its volumes."""
    log = records.joblog_of(failover)
    if failover.status == "completed":
        return Life(alive=False, finished=True, sentence=f"Failover {failover.job_id} is recorded as completed.")
    if log is None:
        return Life(alive=False, finished=False, sentence="dead: it has no JobLog row.")
    if log.status == "completed" and failover.status not in REVERTING:
        return Life(alive=False, finished=True, sentence=f"The JobLog says that failover {failover.job_id} completed.")
    if log.status != "running":
        last = f", and its last sign of life is from {utc(log.last_activity_at)}" if log.last_activity_at else ""
        return Life(alive=False, finished=False, sentence=f"dead: its JobLog row says {log.status or 'nothing'}{last}.")
    if pending:
        return Life(alive=True, finished=False, sentence=f"Failover {failover.job_id} is at work: {pending[0]}")
    return _life_of_log(f"Failover {failover.job_id}", log, now, limits)


def failover_life_in(evidence: Evidence, failover: FailoverRecord) -> Life:
    """The same with what CloudStack is doing to its VM and its volumes."""
    doing = pending_jobs(evidence, failover)
    return failover_life(evidence.records, failover, evidence.observed_at, evidence.limits, doing)


def job_life(job: JobLogRecord, now: datetime, limits: GuardLimits) -> Life:
    """Of another running row of the JobLog: a rollback, or a clean-up of somebody else."""
    return _life_of_log(f"The job {job.job_id} ({job.operation or job.job_type})", job, now, limits)


def pending_jobs(evidence: Evidence, failover: FailoverRecord) -> tuple[str, ...]:
    """Sentences about CloudStack jobs that are pending on the failover's VM, the volumes or their snapshots."""
    found: list[str] = []
    vm = evidence.find_vm(failover.destination_vm_id)
    if vm is not None and vm.pending_job_id:
        found.append(f"CloudStack job {vm.pending_job_id} is under way on its VM {vm.name}.")
    for facts in evidence.volumes:
        volume = facts.cloud
        if isinstance(volume, CloudVolume) and volume.pending_job_id:
            found.append(f"CloudStack job {volume.pending_job_id} is under way on the volume {volume.name}.")
    own = evidence.own_snapshots if isinstance(evidence.own_snapshots, tuple) else ()
    found += [
        f"CloudStack job {snapshot.pending_job_id} is under way on the snapshot {snapshot.id}."
        for snapshot in own
        if snapshot.pending_job_id
    ]
    return tuple(found)


def is_recently_touched(replication: ReplicationRecord, now: datetime, limits: GuardLimits) -> bool:
    """Whether an open replication's own row says that somebody is at it."""
    touched = replication.last_touched_at
    return replication.is_open and touched is not None and (now - touched).total_seconds() < limits.alive_s


def clients_of(evidence: Evidence) -> Iterator[str]:
    """A sentence about every NBD client that is connected to a device of this VM: a replication that is alive."""
    names = {volume.volume_id: volume.volume_name for volume in evidence.records.volumes}
    for facts in evidence.volumes:
        if isinstance(facts.holders, DeviceHolders):
            for client in facts.holders.clients:
                yield f"An NBD client is connected to {names[facts.volume_id]}: {client.sentence}."


def _life_of_log(name: str, log: JobLogRecord, now: datetime, limits: GuardLimits) -> Life:
    if log.last_activity_at is None:
        return Life(alive=False, finished=False, sentence="dead: its JobLog row shows no step and no line.")
    age_s = (now - log.last_activity_at).total_seconds()
    if age_s < limits.alive_s:
        written = f"{age_s:.0f} s ago" if age_s >= 0 else f"at {utc(log.last_activity_at)}, which is still to come"
        return Life(alive=True, finished=False, sentence=f"{name} wrote to its JobLog {written}.")
    return Life(alive=False, finished=False, sentence=f"dead since {utc(log.last_activity_at)}, its last sign of life.")
