"""Following jobs: to their end, through every kind of bad look, many with one sweep."""

from __future__ import annotations

import asyncio
import time

import pytest

from ossea.client import CloudStack
from ossea.errors import CloudStackError, ErrorKind
from ossea.jobs import JobPoller
from ossea.models import JobStatus
from ossea.reading import Reader
from ossea.transport import Transport
from tests.unit.ossea.stub import Answer, Cut, Hang, Held, Stub, error

VM = "11111111-1111-4111-8111-111111111111"
LOOKS = ("queryAsyncJobResult", "listAsyncJobs")


async def test_a_job_is_followed_to_its_success(stub: Stub, client: CloudStack):
    job_id = await client.detach_volume("v")
    waiting = asyncio.create_task(client.wait_job(job_id))
    await stub.until(lambda: stub.count(*LOOKS) >= 3)
    assert not waiting.done()
    stub.succeed(job_id)
    job = await waiting
    assert (job.status, job.command, job.result) == (JobStatus.SUCCEEDED, "detachVolume", {"success": True})


async def test_a_failed_job_without_a_result_ends_with_its_outcome_unknown(stub: Stub, client: CloudStack):
    job_id = stub.add_job(jobstatus=2, jobresultcode=530)
    job = await client.wait_job(job_id)
    assert (job.status, job.refused, job.errorcode) == (JobStatus.FAILED, False, 530)
    assert "unknown" in (job.errortext or "")


async def test_the_real_code_of_a_failed_job_is_inside_its_result(stub: Stub, client: CloudStack):
    """4.11 reports every failure as 530 outside."""
    result = {"errorcode": 431, "errortext": "The specified volume is not attached to a VM."}
    job = await client.wait_job(stub.add_job(jobstatus=2, jobresultcode=530, jobresult=result))
    assert job.refused
    assert job.errortext == "The specified volume is not attached to a VM."


async def test_an_id_that_cloudstack_does_not_know_is_absent(client: CloudStack):
    for job in (await client.query_job("nobody"), await client.wait_job("nobody")):
        assert (job.status, job.known_before) == (JobStatus.ABSENT, False)


async def test_a_job_that_was_accepted_and_is_gone_did_arrive(stub: Stub, client: CloudStack):
    job_id = await client.detach_volume("v")
    del stub.jobs[job_id]
    job = await client.wait_job(job_id)
    assert (job.status, job.known_before) == (JobStatus.ABSENT, True)


BAD = [
    error(401, "unable to verify user credentials", None),
    error(429, "please retry after 5 ms.", None),
    error(530, "Internal error", 4250),
    error(503, "maintenance"),
    Answer(502, "<html>", "text/html"),
    Answer(200, "{broken"),
    Answer(200, '{"queryasyncjobresultresponse": {}}'),
    Answer(200, '{"queryasyncjobresultresponse": {"jobstatus": 7}}'),
]


async def test_bad_looks_do_not_end_the_following(stub: Stub, client: CloudStack):
    job_id = stub.add_job()
    for bad in BAD:
        stub.script("queryAsyncJobResult", bad, Cut(), Cut())
    waiting = asyncio.create_task(client.wait_job(job_id))
    await stub.until(lambda: not stub.scripted["queryAsyncJobResult"])
    stub.succeed(job_id)
    assert (await waiting).status is JobStatus.SUCCEEDED


async def test_trouble_with_looking_is_told_while_it_lasts(stub: Stub, client: CloudStack):
    job_id = stub.add_job()
    waiting = asyncio.create_task(client.wait_job(job_id))
    await stub.until(lambda: stub.count("queryAsyncJobResult") >= 2)
    told = [client.last_poll_error]
    stub.script("queryAsyncJobResult", *[error(530, "database is away", 4250)] * 5)
    await stub.until(lambda: len(stub.scripted["queryAsyncJobResult"]) <= 2)
    told.append(client.last_poll_error)
    stub.succeed(job_id)
    await waiting
    await client.wait_job(job_id)
    told.append(client.last_poll_error)
    assert told == [None, "database is away", None]


async def test_at_the_deadline_the_job_is_pending_and_can_be_waited_for_again(stub: Stub, client: CloudStack):
    job_id = stub.add_job()
    assert (await client.wait_job(job_id, 0)).status is JobStatus.PENDING
    assert (await client.wait_job(job_id, 0.03)).status is JobStatus.PENDING
    stub.succeed(job_id)
    assert (await client.wait_job(job_id, 5)).status is JobStatus.SUCCEEDED


async def test_a_deadline_holds_while_nobody_answers(stub: Stub, client: CloudStack):
    stub.script("queryAsyncJobResult", Hang())
    assert (await client.wait_job(stub.add_job(), 0.05)).status is JobStatus.PENDING


async def test_many_jobs_are_followed_with_one_list(stub: Stub, client: CloudStack):
    jobs = [stub.add_job() for _ in range(60)]
    waiting = [asyncio.create_task(client.wait_job(job_id)) for job_id in jobs]
    await stub.until(lambda: stub.count("listAsyncJobs") >= 3)
    assert stub.count("queryAsyncJobResult") == 0
    for job_id in jobs:
        stub.succeed(job_id)
    assert {job.status for job in await asyncio.gather(*waiting)} == {JobStatus.SUCCEEDED}
    assert stub.count("queryAsyncJobResult") == len(jobs)


async def test_a_newer_server_lists_pending_jobs_only(stub: Stub, client: CloudStack):
    stub.lists_pending_only = True
    jobs = [stub.add_job() for _ in range(20)]
    waiting = [asyncio.create_task(client.wait_job(job_id)) for job_id in jobs]
    await stub.until(lambda: stub.count("listAsyncJobs") >= 1)
    refused = {"errorcode": 431, "errortext": "no"}
    for job_id in jobs[:10]:
        stub.succeed(job_id)
    for job_id in jobs[10:]:
        stub.jobs[job_id].update(jobstatus=2, jobresultcode=530, jobresult=refused)
    ended = await asyncio.gather(*waiting)
    assert [job.status for job in ended] == [JobStatus.SUCCEEDED] * 10 + [JobStatus.FAILED] * 10
    assert all(job.refused for job in ended[10:])


async def test_jobs_that_the_list_leaves_out_are_asked_for_one_by_one(stub: Stub, client: CloudStack):
    stub.lists_nothing = True
    jobs = [stub.add_job() for _ in range(10)]
    waiting = [asyncio.create_task(client.wait_job(job_id)) for job_id in jobs]
    await stub.until(lambda: stub.count("queryAsyncJobResult") >= 60)
    assert stub.count("listAsyncJobs") <= 3
    for job_id in jobs:
        stub.succeed(job_id)
    assert {job.status for job in await asyncio.gather(*waiting)} == {JobStatus.SUCCEEDED}


async def test_a_list_that_fails_does_not_end_the_following(stub: Stub, client: CloudStack):
    stub.script("listAsyncJobs", *[error(530, "boom")] * 3)
    jobs = [stub.add_job() for _ in range(10)]
    waiting = [asyncio.create_task(client.wait_job(job_id)) for job_id in jobs]
    await stub.until(lambda: stub.count("listAsyncJobs") >= 4)
    for job_id in jobs:
        stub.succeed(job_id)
    assert len(await asyncio.gather(*waiting)) == 10


async def test_a_new_job_is_looked_at_though_the_others_are_not_due(stub: Stub):
    """The old job has been waited for a day when the new one comes, so that its next look is most of an hour away."""
    waited_s = 0.0
    transport = Transport(stub.endpoint(), timeout_s=5, expires_s=60)
    reader = Reader(transport)
    poller = JobPoller(reader, poll_min_s=0.01, poll_max_s=3600, monotonic=lambda: waited_s + time.monotonic())
    await transport.open()
    try:
        old = asyncio.create_task(poller.wait(stub.add_job(), None))
        await asyncio.sleep(0)
        waited_s = 86_400.0
        await stub.until(lambda: stub.count(*LOOKS) >= 1)
        for _ in range(3):  # exchanges that end after that look's
            await reader.list_zones()
        ended = stub.add_job()
        stub.succeed(ended)
        assert (await poller.wait(ended, 5)).status is JobStatus.SUCCEEDED
        assert not old.done()
        old.cancel()
    finally:
        await poller.aclose()
        await transport.aclose()


async def test_one_job_that_cannot_be_read_does_not_hold_up_another(stub: Stub, client: CloudStack):
    broken = stub.add_job(jobstatus=9)
    waiting = asyncio.create_task(client.wait_job(broken))
    await stub.until(lambda: stub.count(*LOOKS) >= 4)
    fine = stub.add_job()
    stub.succeed(fine)
    assert (await client.wait_job(fine)).status is JobStatus.SUCCEEDED
    assert not waiting.done()
    waiting.cancel()


async def test_several_may_wait_for_one_job_and_one_may_go(stub: Stub, client: CloudStack):
    job_id = stub.add_job()
    first, second = (asyncio.create_task(client.wait_job(job_id)) for _ in range(2))
    await stub.until(lambda: stub.count(*LOOKS) >= 1)
    first.cancel()
    stub.succeed(job_id)
    assert (await second).status is JobStatus.SUCCEEDED
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_who_begins_to_wait_during_a_look_for_one_who_left_is_told(stub: Stub, client: CloudStack):
    job_id, held = stub.add_job(), Held()
    stub.script("queryAsyncJobResult", held)
    left = asyncio.create_task(client.wait_job(job_id))
    await stub.until(lambda: stub.count(*LOOKS) >= 1)
    left.cancel()
    await asyncio.wait({left})
    stub.succeed(job_id)
    waiting = asyncio.create_task(client.wait_job(job_id, 5))
    await asyncio.sleep(0)
    held.release.set()
    assert (await waiting).status is JobStatus.SUCCEEDED


async def test_nobody_waits_then_nobody_looks(stub: Stub, client: CloudStack):
    waiting = asyncio.create_task(client.wait_job(stub.add_job()))
    await stub.until(lambda: stub.count(*LOOKS) >= 2)
    waiting.cancel()
    await asyncio.wait({waiting})
    other = stub.add_job()
    stub.succeed(other)
    await client.wait_job(other)
    looks = stub.sent("queryAsyncJobResult")
    await client.list_zones()
    assert looks[-1]["jobid"] == other
    assert len(stub.sent("queryAsyncJobResult")) == len(looks)


async def test_closing_the_client_tells_those_who_wait(stub: Stub):
    client = CloudStack(stub.endpoint(), poll_min_s=0.01)
    async with client:
        waiting = asyncio.create_task(client.wait_job(stub.add_job()))
        await stub.until(lambda: stub.count(*LOOKS) >= 1)
    with pytest.raises(CloudStackError) as caught:
        await waiting
    assert caught.value.kind is ErrorKind.NO_ANSWER
    await client.aclose()
    with pytest.raises(CloudStackError):
        await client.wait_job("another")


@pytest.mark.parametrize(
    ("java", "command"),
    [
        ("org.apache.cloudstack.api.command.admin.volume.AttachVolumeCmdByAdmin", "attachVolume"),
        ("org.apache.cloudstack.api.command.user.vm.StopVMCmd", "stopVirtualMachine"),
        ("org.apache.cloudstack.api.command.admin.vm.DestroyVMCmdByAdmin", "destroyVirtualMachine"),
        ("org.apache.cloudstack.api.command.user.tag.CreateTagsCmd", "createTags"),
    ],
)
async def test_the_command_is_read_from_the_java_class(stub: Stub, client: CloudStack, java, command):
    assert (await client.query_job(stub.add_job(cmd=java))).command == command
