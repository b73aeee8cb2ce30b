"""Changes under an id of ours: honoured or not, taken already, given up by somebody else."""

from __future__ import annotations

import asyncio

import pytest

from ossea.client import CloudStack
from ossea.errors import CloudStackError, ErrorKind
from tests.unit.ossea.stub import UNKNOWN, Answer, Cut, Stub, error

VM = "11111111-1111-4111-8111-111111111111"
VOLUME = "22222222-2222-4222-8222-222222222222"
JOB = "33333333-3333-4333-8333-333333333333"


async def test_a_job_gets_the_id_that_we_chose(stub: Stub, client: CloudStack):
    assert await client.revert_snapshot("s", job_id=JOB) == JOB
    assert await client.honours_custom_job_id()
    assert stub.count("deleteTags") == 0, "a submission has answered the question already"


async def test_an_old_server_gives_its_own_id(stub: Stub, client: CloudStack):
    stub.honours_ids = False
    queued = await client.detach_volume(VOLUME, job_id=JOB)
    assert queued != JOB
    assert queued in stub.jobs
    assert not await client.honours_custom_job_id()


@pytest.mark.parametrize("honours", [True, False])
async def test_the_endpoint_is_probed_once_and_with_nothing_that_exists(stub: Stub, client: CloudStack, honours):
    stub.honours_ids = honours
    assert await asyncio.gather(*(client.honours_custom_job_id() for _ in range(5))) == [honours] * 5
    (probe,) = stub.sent("deleteTags")
    assert probe["customjobid"] != probe["resourceids"]
    assert {name for name, _ in stub.calls} == {"listCapabilities", "deleteTags"}


async def test_a_probe_that_fails_is_not_an_answer(stub: Stub, client: CloudStack):
    stub.script("deleteTags", Cut())
    with pytest.raises(CloudStackError):
        await client.honours_custom_job_id()
    assert await client.honours_custom_job_id()


@pytest.mark.parametrize("code", [431, 530])
async def test_the_same_call_sent_again_is_the_same_job(stub: Stub, client: CloudStack, code):
    await client.attach_volume(VOLUME, VM, job_id=JOB)
    if code == 530:
        stub.script("attachVolume", error(530, f"Job with UUID: {JOB} already exists", 4250))
    assert await client.attach_volume(VOLUME, VM, job_id=JOB) == JOB
    assert list(stub.jobs) == [JOB]


async def test_a_creation_sent_again_names_the_same_entity(stub: Stub, client: CloudStack):
    first = await client.create_snapshot(VOLUME, name="n", job_id=JOB)
    assert await client.create_snapshot(VOLUME, name="n", job_id=JOB) == first


async def test_an_id_that_was_spent_on_another_command_refuses(stub: Stub, client: CloudStack):
    await client.create_tags([VM], "UserVm", {"oma-epoch": "1"}, job_id=JOB)
    with pytest.raises(CloudStackError, match="spent on createTags") as caught:
        await client.detach_volume(VOLUME, job_id=JOB)
    assert caught.value.kind is ErrorKind.REFUSED


async def test_an_id_in_use_by_what_cannot_be_told_is_unknown(stub: Stub, client: CloudStack):
    await client.detach_volume(VOLUME, job_id=JOB)
    stub.script("queryAsyncJobResult", Cut(), Cut())
    with pytest.raises(CloudStackError) as caught:
        await client.detach_volume(VOLUME, job_id=JOB)
    assert caught.value.kind is ErrorKind.NO_ANSWER


@pytest.mark.parametrize("shown", ["absent", "no command"])
async def test_an_id_in_use_that_is_not_shown_is_no_refusal(stub: Stub, client: CloudStack, shown):
    """The call may have arrived: "nothing was queued" would be a guess."""
    await client.detach_volume(VOLUME, job_id=JOB)
    if shown == "absent":
        stub.script("queryAsyncJobResult", error(431, UNKNOWN.format(command="x", name="jobid", value=JOB)))
    else:
        stub.script("queryAsyncJobResult", Answer(body={"queryasyncjobresultresponse": {"jobid": JOB, "jobstatus": 0}}))
    with pytest.raises(CloudStackError, match="does not say what") as caught:
        await client.detach_volume(VOLUME, job_id=JOB)
    assert caught.value.kind is ErrorKind.NO_ANSWER


async def test_another_account_is_used_from_the_next_call_on(stub: Stub, client: CloudStack):
    await client.detach_volume(VOLUME)
    await client.use(stub.endpoint(key="gone"))
    with pytest.raises(CloudStackError, match="credentials"):
        await client.list_zones()
    await client.use(stub.endpoint())
    assert await client.list_zones() == []
    assert client.endpoint == stub.endpoint()


async def test_a_refusal_about_another_name_that_exists_stays_a_refusal(stub: Stub, client: CloudStack):
    stub.script("createSnapshot", error(431, "A snapshot of this name already exists"))
    with pytest.raises(CloudStackError) as caught:
        await client.create_snapshot(VOLUME, name="n", job_id=JOB)
    assert caught.value.kind is ErrorKind.REFUSED


@pytest.mark.parametrize("content", [{}, {"jobid": ""}, {"id": "x"}])
async def test_an_answer_without_a_job_is_broken(stub: Stub, client: CloudStack, content):
    stub.script("detachVolume", Answer(body={"xresponse": content}))
    with pytest.raises(CloudStackError) as caught:
        await client.detach_volume(VOLUME)
    assert caught.value.kind is ErrorKind.BROKEN_ANSWER


async def test_a_synchronous_delete_that_says_false_failed(stub: Stub, client: CloudStack):
    await client.delete_volume(VOLUME)
    stub.script("deleteVolume", Answer(body={"xresponse": {"success": "false", "displaytext": "still attached"}}))
    with pytest.raises(CloudStackError, match="still attached"):
        await client.delete_volume(VOLUME)


async def test_every_command_sends_its_parameters(stub: Stub, client: CloudStack):
    await client.attach_volume(VOLUME, VM, device_id=0)
    await client.stop_vm(VM, forced=True)
    await client.destroy_vm(VM)
    await client.create_volume("n", disk_offering_id="o", zone_id="z", size_gib=3)
    await client.delete_tags([VM, VOLUME], "UserVm", {"a": None, "b": "x"})
    await client.recover_vm(VM)

    def sent(command):
        signing = {"command", "apiKey", "response", "signature", "signatureVersion", "expires"}
        (params,) = stub.sent(command)
        return {key: value for key, value in params.items() if key not in signing}

    assert sent("attachVolume") == {"id": VOLUME, "virtualmachineid": VM, "deviceid": "0"}
    assert sent("stopVirtualMachine") == {"id": VM, "forced": "true"}
    assert sent("destroyVirtualMachine") == {"id": VM}
    assert sent("createVolume") == {"name": "n", "diskofferingid": "o", "zoneid": "z", "size": "3"}
    assert sent("deleteTags") == {
        "resourceids": f"{VM},{VOLUME}", "resourcetype": "UserVm",
        "tags[0].key": "a", "tags[1].key": "b", "tags[1].value": "x",
    }  # fmt: skip


async def test_what_no_cloudstack_would_take_is_refused_at_once(client: CloudStack):
    with pytest.raises(ValueError, match="slot"):
        await client.attach_volume(VOLUME, VM, device_id=3)
    with pytest.raises(ValueError, match="lower-case UUID"):
        await client.detach_volume(VOLUME, job_id=JOB.upper().replace("3", "A"))
    with pytest.raises(ValueError, match="255"):
        await client.create_tags([VM], "UserVm", {"k": "x" * 256})
