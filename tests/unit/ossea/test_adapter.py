"""CloudStack as the `Cloud` port shows it: values, outcomes and faults in the port's words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from oma.adapters.cloudstack import CloudStackCloud
from oma.ports import Fault, RemoteStatus, UpstreamError
from ossea.client import CloudStack
from tests.unit.ossea.stub import Answer, Cut, Stub, error

JOB = "33333333-3333-4333-8333-333333333333"
VM = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def cloud(client: CloudStack) -> CloudStackCloud:
    return CloudStackCloud(client)


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=30)


async def test_what_is_listed_arrives_with_its_state_and_pending_job(stub: Stub, cloud: CloudStackCloud):
    stub.tables["listVolumes"] = [
        {"id": "v1", "name": "a", "state": "Ready", "type": "ROOT", "size": 7, "deviceid": 0, "virtualmachineid": VM,
         "vmname": "t", "vmstate": "Running", "jobid": JOB, "jobstatus": 0},
        {"id": "v2", "name": "b", "state": "Ready", "type": "DATADISK", "size": 8},
    ]  # fmt: skip
    busy, free = await cloud.list_volumes(["v1", "v2", "gone"])
    assert (busy.vm_id, busy.device_id, busy.is_root, busy.pending_job_id) == (VM, 0, True, JOB)
    assert (free.vm_id, free.size_bytes, free.is_settled) == (None, 8, True)


async def test_snapshots_and_vms(stub: Stub, cloud: CloudStackCloud):
    stub.tables["listSnapshots"] = [
        {"id": "s", "volumeid": "v1", "name": "n", "state": "BackedUp", "created": "2026-01-01T01:00:00+0100",
         "virtualsize": 7, "revertable": False},
    ]  # fmt: skip
    stub.tables["listVirtualMachines"] = [{"id": VM, "name": "i", "displayname": "d", "state": "Stopped"}]
    (snapshot,) = await cloud.list_snapshots(["s", "t"])
    assert (snapshot.volume_id, snapshot.size_bytes, snapshot.revertable) == ("v1", 7, False)
    assert snapshot.created == datetime(2026, 1, 1, tzinfo=UTC)
    (vm,) = await cloud.list_vms([VM])
    assert vm.is_stopped
    assert vm.display_name == "d"


async def test_nothing_asked_is_nothing_answered(stub: Stub, cloud: CloudStackCloud):
    assert not [*await cloud.list_volumes([]), *await cloud.list_vms([]), *await cloud.list_snapshots([])]
    assert not await cloud.list_vm_snapshot_holders([])
    assert stub.calls == []


async def test_a_volume_vanished_from_every_list_is_missing_not_an_error(cloud: CloudStackCloud):
    assert await cloud.list_volumes(["gone"]) == []


async def test_each_submission_carries_the_request_id(stub: Stub, cloud: CloudStackCloud):
    submitted = [
        await cloud.submit_stop_vm(VM, forced=False, request_id=JOB.replace("3", "4"), expires_at=soon()),
        await cloud.submit_destroy_vm(VM, request_id=JOB.replace("3", "5"), expires_at=soon()),
        await cloud.submit_revert("s", request_id=JOB.replace("3", "6"), expires_at=soon()),
        await cloud.submit_delete_snapshot("s", request_id=JOB.replace("3", "7"), expires_at=None),
    ]
    assert submitted == list(stub.jobs)
    assert "expunge" not in stub.sent("destroyVirtualMachine")[0]
    assert stub.sent("stopVirtualMachine")[0]["forced"] == "false"


async def test_a_tag_whose_job_never_ends_is_waited_for_no_longer_than_it_is_worth(
    stub: Stub, cloud: CloudStackCloud, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("oma.adapters.cloudstack.EPOCH_PATIENCE_S", 0.02)
    with pytest.raises(UpstreamError, match="the tag is not oma:1"):
        await cloud.put_epoch(VM, "oma:1", None)
    assert stub.count("createTags") == 1


async def test_a_call_whose_time_has_passed_is_not_tried_again(stub: Stub, cloud: CloudStackCloud):
    with pytest.raises(UpstreamError) as caught:
        await cloud.submit_destroy_vm(VM, request_id=JOB, expires_at=soon() - timedelta(hours=1))
    assert (caught.value.fault, caught.value.upstream.code, caught.value.spent) == (Fault.NOT_SENT, "expired", True)


@pytest.mark.parametrize(
    ("reply", "fault", "code"),
    [
        (error(431, "Volume is attached"), Fault.REFUSED, "431"),
        (error(401, "unable to verify", None), Fault.REFUSED, "401"),
        (error(530, "Internal error"), Fault.FAILED, "530"),
        (error(534, "resource away"), Fault.FAILED, "534"),
        (error(503, "maintenance"), Fault.NOT_SENT, "503"),
        (error(429, "retry after 90000 ms."), Fault.NOT_SENT, "429"),
        (Answer(503, "<html>", "text/html"), Fault.BROKEN_ANSWER, "unavailable"),
        (Answer(200, "<html>", "text/html"), Fault.BROKEN_ANSWER, "broken_answer"),
        (Cut(), Fault.NO_ANSWER, "no_answer"),
    ],
)
async def test_a_call_that_goes_wrong_has_one_fault(stub: Stub, cloud: CloudStackCloud, reply, fault, code):
    stub.script("revertSnapshot", reply)
    with pytest.raises(UpstreamError) as caught:
        await cloud.submit_revert("s", request_id=JOB, expires_at=soon())
    assert (caught.value.fault, caught.value.upstream.code) == (fault, code)
    assert caught.value.upstream.system == "CloudStack"
    assert caught.value.upstream.text


async def test_an_expired_intent_is_not_sent(stub: Stub, cloud: CloudStackCloud):
    with pytest.raises(UpstreamError) as caught:
        await cloud.submit_revert("s", request_id=JOB, expires_at=datetime.now(UTC) - timedelta(seconds=5))
    assert caught.value.fault is Fault.NOT_SENT
    assert stub.count("revertSnapshot") == 0


async def test_job_endings(stub: Stub, cloud: CloudStackCloud):
    refused = {"errorcode": 431, "errortext": "The specified volume is not attached to a VM."}
    failed = {"errorcode": 530, "errortext": "Failed to revert"}
    jobs = {
        RemoteStatus.SUCCEEDED: stub.add_job(jobstatus=1, jobresult={"success": True}),
        RemoteStatus.REFUSED: stub.add_job(jobstatus=2, jobresultcode=530, jobresult=refused),
        RemoteStatus.FAILED: stub.add_job(jobstatus=2, jobresultcode=530, jobresult=failed),
    }
    for status, job_id in jobs.items():
        for outcome in (await cloud.query_job(job_id), await cloud.wait_job(job_id)):
            assert outcome.status is status
    said = (await cloud.query_job(jobs[RemoteStatus.REFUSED])).upstream
    assert said is not None
    assert (said.code, said.text) == ("431", refused["errortext"])
    lost = await cloud.wait_job(stub.add_job(jobstatus=2))
    assert lost.status is RemoteStatus.FAILED
    assert (await cloud.query_job(stub.add_job())).status is RemoteStatus.PENDING


async def test_an_unknown_id_never_arrived_where_ids_of_ours_are_honoured(cloud: CloudStackCloud):
    assert (await cloud.query_job(JOB)).status is RemoteStatus.ABSENT
    assert (await cloud.wait_job(JOB)).status is RemoteStatus.ABSENT


async def test_an_unknown_id_says_nothing_where_they_are_not(stub: Stub, cloud: CloudStackCloud):
    stub.honours_ids = False
    assert (await cloud.query_job(JOB)).status is RemoteStatus.UNTRACEABLE


async def test_a_job_that_was_accepted_and_forgotten_failed_with_an_unknown_effect(stub: Stub, cloud: CloudStackCloud):
    await cloud.submit_revert("s", request_id=JOB, expires_at=soon())
    del stub.jobs[JOB]
    assert (await cloud.wait_job(JOB)).status is RemoteStatus.FAILED


async def test_check_says_version_and_clock(stub: Stub, cloud: CloudStackCloud):
    stub.skew = timedelta(seconds=40)
    sentence = await cloud.check()
    assert "4.18.0" in sentence
    assert "+40" in sentence or "+39" in sentence or "+41" in sentence
    stub.script("listCapabilities", Answer(200, "hello", "text/plain"))
    with pytest.raises(UpstreamError):
        await cloud.check()
