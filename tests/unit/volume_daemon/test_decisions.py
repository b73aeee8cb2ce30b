from __future__ import annotations

import pytest

from ossea.models import JobResult, JobStatus
from tests.unit.volume_daemon.builders import OMA_ID, TEST_VM_ID, entry, volume
from volume_daemon.models import FaultKind
from volume_daemon.server.decisions import (
    Already,
    Applied,
    Ask,
    Ended,
    Follow,
    Refuse,
    decide,
    is_wanted,
    job_error,
    judge,
    judge_beside,
)


def job(status: JobStatus, **fields: object) -> JobResult:
    return JobResult("job-1", status, **fields)  # type: ignore[arg-type]


REFUSED = job(JobStatus.FAILED, errorcode=431, errortext="The specified volume is not attached to a VM.")
BROKEN = job(JobStatus.FAILED, errorcode=530, errortext="Failed to detach volume")


def test_an_attach_waits_for_a_job_that_is_at_work_on_the_volume():
    # 4-cloudstack 5: a late detach can wipe a newer attachment (#14214).
    assert decide(entry(), volume(job_id="late-detach", job_status=0)) == Follow("late-detach")
    assert decide(entry(), volume(job_id="ended", job_status=1)) == Ask(OMA_ID)


def test_an_attach_is_never_sent_for_a_volume_that_hangs_elsewhere():
    decision = decide(entry(), volume(vm_id=TEST_VM_ID, vm_name="pgtest1-test"))
    assert isinstance(decision, Refuse)
    assert decision.error.kind is FaultKind.REFUSED
    assert "pgtest1-test" in decision.error.text


def test_an_attachment_that_is_there_is_not_asked_for_again_but_a_wrong_slot_is_refused():
    there = volume(vm_id=OMA_ID.upper(), device_id=3)
    assert isinstance(decide(entry(), there), Already)
    assert isinstance(decide(entry(request={"device_id": 0}), there), Refuse)


def test_a_volume_that_is_not_listed_is_not_detached():
    decision = decide(entry("detach"), None)
    assert isinstance(decision, Refuse)
    assert decision.error.code == "volume_not_found"


def test_a_detach_stands_in_the_queue_of_the_vm_that_holds_the_volume():
    assert decide(entry("detach"), volume(vm_id=TEST_VM_ID)) == Ask(TEST_VM_ID)
    assert isinstance(decide(entry("detach"), volume()), Already)


def test_431_on_a_detach_is_a_question():
    # 6-safety 4: the volume is read again.
    ended = Ended("job-1", job_error(REFUSED))
    assert isinstance(judge(entry("detach"), ended, volume()), Applied)
    verdict = judge(entry("detach"), ended, volume(vm_id=OMA_ID))
    assert isinstance(verdict, Refuse)
    assert (verdict.error.errorcode, verdict.error.errortext) == (431, REFUSED.errortext)
    assert verdict.error.kind is FaultKind.REFUSED
    assert judge(entry("detach"), ended, volume(job_id="other", job_status=0)) == Follow("other")


def test_a_failed_job_says_nothing_about_what_was_changed():
    ended = Ended("job-1", job_error(BROKEN))
    assert isinstance(judge(entry(), ended, volume(vm_id=OMA_ID)), Applied)
    verdict = judge(entry(), ended, volume())
    assert isinstance(verdict, Refuse)
    assert verdict.error.kind is FaultKind.FAILED


def test_success_that_cloudstack_does_not_show_is_a_failure():
    verdict = judge(entry("detach"), Ended("job-1", None), volume(vm_id=OMA_ID))
    assert isinstance(verdict, Refuse)
    assert verdict.error.code == "cloudstack_contradiction"


def test_a_volume_that_vanished_is_not_detached():
    assert not is_wanted(entry("detach"), None)
    assert is_wanted(entry("delete"), None)


@pytest.mark.parametrize("status", [JobStatus.ABSENT])
def test_a_forgotten_job_has_an_unknown_outcome(status):
    error = job_error(job(status))
    assert error is not None
    assert (error.code, error.kind) == ("outcome_unknown", FaultKind.FAILED)


def test_a_stuck_job_of_somebody_else_hides_neither_success_nor_failure():
    done = judge_beside(entry("detach"), Ended("job-1", None), volume(), "job-2")
    assert isinstance(done, Applied)
    assert "job-2" in done.sentence
    refused = judge_beside(entry("detach"), Ended("job-1", job_error(REFUSED)), volume(vm_id=OMA_ID), "job-2")
    assert isinstance(refused, Refuse)
    # It may be that job which keeps it there.
    assert (refused.error.kind, "job-2" in refused.error.text) == (FaultKind.FAILED, True)
