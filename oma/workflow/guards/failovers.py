"""Guards about failovers, test VMs and replications that are in use or alive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.records import FailoverRecord
from oma.domain.verdict import shell_word
from oma.domain.world import CloudVm
from oma.workflow.doubt import utc
from oma.workflow.guards.places import asked_in_vain, name_of
from oma.workflow.leftover import find_leftover
from oma.workflow.life import clients_of, failover_life_in, is_recently_touched, job_life
from oma.workflow.live import judged_live_failovers, may_have_started
from oma.workflow.vm_history import was_started

LEAVE_IT: Final = "Leave it alone: people may work on the VM that it made. Nothing was touched."


def live_failover(evidence: Evidence) -> Iterator[Refusal]:
    """A live failover whose VM was ever started is never undone; what can't be told counts as started.

    The newest one counts, and any older one that never ended: a reset would end it as failed. One whose VM exists but
    was never started passes by `force` with the VM's own id; one without a VM is cleaned like a test.
    """
    for failover in judged_live_failovers(evidence.records):
        if asked_in_vain(evidence, "the VMs") and failover.destination_vm_id:
            yield Refusal(
                Code.STATE_UNKNOWN,
                f"Whether the VM of the live failover {failover.job_id} exists can't be told: CloudStack did not say.",
                "See that CloudStack answers (oma doctor), then ask again. Nothing was touched.",
                failover_evidence(evidence, failover),
            )
            continue
        vm = evidence.find_vm(failover.destination_vm_id)
        refusal = _of_no_vm(evidence, failover) if vm is None else _of_vm(evidence, failover, vm)
        if refusal is not None:
            yield refusal


def test_failover_active(evidence: Evidence) -> Iterator[Refusal]:
    """A finished test failover is not a failure: somebody may be using its VM. `end_test` ends the drill."""
    newest = evidence.records.newest_failover
    if newest is None or newest.job_type != "test" or evidence.words.end_test:
        return
    if not failover_life_in(evidence, newest).finished:
        return
    if newest.destination_vm_id and asked_in_vain(evidence, "the VMs"):
        yield Refusal(
            Code.STATE_UNKNOWN,
            f"The test failover {newest.job_id} finished; whether its VM is still there can't be told.",
            "See that CloudStack answers (oma doctor), then ask again. Nothing was touched.",
            failover_evidence(evidence, newest),
        )
        return
    vm = evidence.find_vm(newest.destination_vm_id)
    if vm is None or vm.is_gone:
        return
    command = f"oma cleanup {shell_word(name_of(evidence))} --end-test --reason 'the drill is over'"
    yield Refusal(
        Code.TEST_FAILOVER_ACTIVE,
        f"The test failover {newest.job_id} finished and its VM {vm.name} is {vm.state}; people may be using it.",
        f"When nobody needs the test VM any more, end the drill: {command}",
        {**failover_evidence(evidence, newest), "vm_name": vm.name, "vm_state": vm.state},
    )


def operation_in_progress(evidence: Evidence) -> Iterator[Refusal]:
    """A failover, rollback, clean-up of somebody else or replication that is alive. No word passes it."""
    wait = f"Wait for it to end or to stay silent for {evidence.limits.alive_s:.0f} s, then ask again."
    for failover in evidence.records.failovers:
        if not failover.is_open:
            continue
        life = failover_life_in(evidence, failover)
        if life.alive:
            yield Refusal(Code.OPERATION_IN_PROGRESS, life.sentence, wait, failover_evidence(evidence, failover))
    for job in evidence.records.running_jobs:
        life = job_life(job, evidence.observed_at, evidence.limits)
        if life.alive:
            known = {"job_id": job.job_id, "operation": job.operation, "job_type": job.job_type}
            yield Refusal(Code.OPERATION_IN_PROGRESS, life.sentence, wait, known)
    yield from _replications_alive(evidence)


def _replications_alive(evidence: Evidence) -> Iterator[Refusal]:
    """By an NBD client, always; by an open row that was touched lately. An old row without a client is dead.

    Whether the scan for clients could see everything is asked where holders are judged.
    """
    for sentence in clients_of(evidence):
        yield Refusal(
            Code.OPERATION_IN_PROGRESS,
            f"A replication of {name_of(evidence)} is alive. {sentence}",
            "Wait for the replication to end, or stop it where it was started, then ask again.",
            {"connected": sentence},
        )
    for replication in evidence.records.replications:
        touched = replication.last_touched_at
        if touched is not None and is_recently_touched(replication, evidence.observed_at, evidence.limits):
            yield Refusal(
                Code.OPERATION_IN_PROGRESS,
                f"Replication {replication.id} is {replication.status} and was touched at {utc(touched)}.",
                "Wait for the replication to end, then ask again.",
                {"replication_id": replication.id, "status": replication.status, "touched_at": utc(touched)},
            )


def failover_evidence(evidence: Evidence, failover: FailoverRecord) -> dict[str, object]:
    log = evidence.records.joblog_of(failover)
    return {
        "failover_job_id": failover.job_id,
        "job_type": failover.job_type,
        "status": failover.status,
        "destination_vm_id": failover.destination_vm_id,
        "life": failover_life_in(evidence, failover).sentence,
        "steps": list(log.step_names) if log else [],
    }


def _of_no_vm(evidence: Evidence, failover: FailoverRecord) -> Refusal | None:
    """CloudStack lists no VM of it, or none was recorded."""
    reached = may_have_started(evidence.records, failover)
    if reached is None:
        return None
    which = f"its VM {failover.destination_vm_id} is not listed" if failover.destination_vm_id else "no VM is recorded"
    return Refusal(
        Code.LIVE_FAILOVER,
        f"The live failover {failover.job_id} of {name_of(evidence)} {reached}, and {which}: its VM may be running.",
        "Look for the VM that it started in CloudStack. People may work on it; nothing was touched.",
        failover_evidence(evidence, failover),
    )


def _of_vm(evidence: Evidence, failover: FailoverRecord, vm: CloudVm) -> Refusal | None:
    known = {**failover_evidence(evidence, failover), "vm_name": vm.name, "vm_state": vm.state}
    reached = may_have_started(evidence.records, failover)
    start = was_started(vm, evidence.find_history(vm.id))
    if reached is not None or start.started:
        by = f"the failover {reached}" if reached is not None else start.sentence
        return Refusal(
            Code.LIVE_FAILOVER,
            f"{name_of(evidence)} was failed over for good to {vm.name} ({failover.job_id}): {by}.",
            LEAVE_IT,
            {**known, "started": by},
        )
    leftover = find_leftover(evidence)
    if leftover is not None and leftover.kept and leftover.vm.id == vm.id:
        return None
    if vm.is_gone:
        # It holds nothing of ours, or another guard refuses: then there is nothing to empty.
        return None
    said = f"--force --destination-vm-id {vm.id} --reason 'its VM was never started'"
    command = f"oma cleanup {shell_word(name_of(evidence))} {said}"
    return Refusal(
        Code.LIVE_FAILOVER,
        f"The live failover {failover.job_id} of {name_of(evidence)} made the VM {vm.name}; {start.sentence}.",
        f"If it is to be given up, have the VM emptied (it is never destroyed): {command}",
        {**known, "started": None},
    )
