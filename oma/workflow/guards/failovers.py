"""Guards about failovers, test VMs and replications that are in use or alive."""

from __future__ import annotations

from collections.abc import Iterator

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.records import FailoverRecord
from oma.workflow.guards.places import name_of
from oma.workflow.life import failover_life


def live_failover(evidence: Evidence) -> Iterator[Refusal]:
    """A live failover is never undone: what this version cannot tell (was its VM ever started?) counts as started.

    The newest one counts, and any older one that never ended: a reset would end it as failed.
    """
    newest = evidence.records.newest_failover
    for failover in evidence.records.failovers:
        if failover.job_type == "test" or not (failover is newest or failover.is_open):
            continue
        which = "newest" if failover is newest else "open"
        words = f"({failover.job_id}, {failover.status or 'no status'})"
        yield Refusal(
            Code.LIVE_FAILOVER,
            f"The {which} failover of {name_of(evidence)} is a live failover {words}.",
            "Leave it alone: people may work on the VM that it made. Nothing was touched.",
            failover_evidence(evidence, failover),
        )


def test_failover_active(evidence: Evidence) -> Iterator[Refusal]:
    """A finished test failover is not a failure: somebody may be using its VM."""
    newest = evidence.records.newest_failover
    if newest is None or newest.job_type != "test":
        return
    if not failover_life(evidence.records, newest, evidence.observed_at, evidence.limits).finished:
        return
    vm = evidence.find_vm(newest.destination_vm_id)
    if vm is None or vm.is_gone:
        return
    yield Refusal(
        Code.TEST_FAILOVER_ACTIVE,
        f"The test failover {newest.job_id} finished and its VM {vm.name} is {vm.state}.",
        "End the drill with the ordinary rollback; this is not a failed run.",
        {**failover_evidence(evidence, newest), "vm_state": vm.state},
    )


def operation_in_progress(evidence: Evidence) -> Iterator[Refusal]:
    """A failover, rollback or replication that is alive, or that cannot be told to be dead."""
    for failover in evidence.records.failovers:
        if not failover.is_open:
            continue
        life = failover_life(evidence.records, failover, evidence.observed_at, evidence.limits)
        if life.alive:
            yield Refusal(
                Code.OPERATION_IN_PROGRESS,
                life.sentence,
                f"Wait for it to end or to stay silent for {evidence.limits.alive_s:.0f} s, then ask again.",
                failover_evidence(evidence, failover),
            )
    yield from _open_replications(evidence)


def _open_replications(evidence: Evidence) -> Iterator[Refusal]:
    for replication in evidence.records.replications:
        if not replication.is_open:
            continue
        touched = replication.last_touched_at
        known = {"replication_id": replication.id, "status": replication.status}
        if touched is not None and (evidence.observed_at - touched).total_seconds() < evidence.limits.alive_s:
            yield Refusal(
                Code.OPERATION_IN_PROGRESS,
                f"Replication {replication.id} is {replication.status} and was touched at {touched.isoformat()}.",
                "Wait for the replication to end, then ask again.",
                known,
            )
        else:
            yield Refusal(
                Code.STATE_UNKNOWN,
                f"Replication {replication.id} is recorded as {replication.status}; whether its writer is still "
                "connected to the disk can't be told.",
                "Make sure that no replication of this VM runs and end its replication_jobs row, then ask again.",
                known,
            )


def failover_evidence(evidence: Evidence, failover: FailoverRecord) -> dict[str, object]:
    life = failover_life(evidence.records, failover, evidence.observed_at, evidence.limits)
    return {
        "failover_job_id": failover.job_id,
        "job_type": failover.job_type,
        "status": failover.status,
        "destination_vm_id": failover.destination_vm_id,
        "life": life.sentence,
    }
