"""What a plan says about life and death, leftover VMs and doubtful times: what was observed, and the risks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from oma.domain.evidence import Evidence
from oma.domain.plan import TestVmPlan
from oma.workflow.doubt import doubts, utc
from oma.workflow.leftover import left_alone, unrecorded_vms
from oma.workflow.life import failover_life_in, is_recently_touched, job_life
from oma.workflow.live import judged_live_failovers

MOST_DOUBTS: Final = 10


def observed_life(evidence: Evidence) -> Iterator[str]:
    """Every open failover, other job and replication, and by what it is known to be dead."""
    records, now, limits = evidence.records, evidence.observed_at, evidence.limits
    newest = records.newest_failover
    for failover in records.failovers:
        life = failover_life_in(evidence, failover)
        if failover.is_open:
            says = failover.status or "nothing"
            yield f"The {failover.job_type} failover {failover.job_id} says {says}: {life.sentence}"
        if failover is newest and failover.job_type == "test" and life.finished and evidence.words.end_test:
            yield f"The finished test failover {failover.job_id} passed by end_test: {evidence.words.reason}"
    for job in records.running_jobs:
        life = job_life(job, now, limits)
        yield f"The job {job.job_id} ({job.operation or job.job_type}) says running: {life.sentence}"
    for replication in records.replications:
        if replication.is_open and not is_recently_touched(replication, now, limits):
            touched = replication.last_touched_at
            since = f"dead since {utc(touched)}" if touched else "dead: nobody ever touched it"
            yield f"Replication {replication.id} says {replication.status}: {since}, and no NBD client is connected."
    for failover in judged_live_failovers(records):
        vm = evidence.find_vm(failover.destination_vm_id)
        if vm is None:
            yield f"The live failover {failover.job_id} has no VM in CloudStack; it is cleaned like a test."


def observed_vms(evidence: Evidence, test_vm: TestVmPlan | None) -> Iterator[str]:
    if test_vm is not None and test_vm.kept:
        yield f"The VM {test_vm.name} is {test_vm.state}; known by {test_vm.known_by}."
        yield f"The live failover passed by force: {evidence.words.reason}"
    elif test_vm is not None:
        yield f"The test VM {test_vm.name} is {test_vm.state}; known by {test_vm.known_by}."
    yield from left_alone(evidence)


def observed_doubts(evidence: Evidence) -> Iterator[str]:
    """Times that were read as the more dangerous of their meanings; the first few."""
    sentences = list(doubts(evidence.records))
    yield from islice(sentences, MOST_DOUBTS)
    if len(sentences) > MOST_DOUBTS:
        yield f"{len(sentences) - MOST_DOUBTS} more recorded times are doubtful in the same way."


def vm_risks(evidence: Evidence, test_vm: TestVmPlan | None) -> Iterator[str]:
    if test_vm is not None and test_vm.kept:
        yield f"The VM {test_vm.name} of the live failover is emptied and left; it is never destroyed."
    elif test_vm is not None and test_vm.state == "Running":
        yield f"The test VM {test_vm.name} is running and will be stopped."
    elif test_vm is not None and test_vm.state != "Stopped":
        yield f"The test VM {test_vm.name} is {test_vm.state} and will be left as it is."
    if evidence.words.end_test:
        yield "The drill ends: what people did on the test VM is lost."
    yield from unrecorded_vms(evidence)
    yield from left_alone(evidence)
