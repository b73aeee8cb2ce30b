"""What leaves the client: signatures that CloudStack verifies, expiry in the server's time, nothing twice."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ossea.client import CloudStack
from ossea.credentials import Endpoint
from ossea.errors import CloudStackError, ErrorKind
from tests.unit.ossea.stub import Answer, Cut, Drip, Hang, Stub, error

VM = "11111111-1111-4111-8111-111111111111"
VOLUME = "22222222-2222-4222-8222-222222222222"
JOB = "33333333-3333-4333-8333-333333333333"


def expires_of(params: dict[str, str]) -> datetime:
    return datetime.strptime(params["expires"], "%Y-%m-%dT%H:%M:%S%z")


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "value", ["plain", "PhilB Test machine", "db/prod #7", "сервер-1", "a+b&c=d%e", "*._-", "(x)!'", "100 %", "Ünï€"]
)
async def test_java_accepts_the_signature_of_any_value_that_can_be_signed(stub: Stub, method, value):
    async with CloudStack(stub.endpoint(method=method)) as client:
        await client.create_tags([VM], "UserVm", {value: value})
    (sent,) = stub.sent("createTags")
    assert sent["tags[0].key"] == sent["tags[0].value"] == value


async def test_a_tilde_is_refused_before_anything_is_sent(stub: Stub, client: CloudStack):
    with pytest.raises(CloudStackError, match="~") as caught:
        await client.create_tags([VM], "UserVm", {"oma-cleanup": "~x"})
    assert caught.value.kind is ErrorKind.REFUSED
    assert caught.value.changed_nothing
    assert stub.count("createTags") == 0


async def test_every_call_carries_version_3_and_expires(stub: Stub, client: CloudStack):
    stub.tables["listZones"] = [{"id": "z", "name": "zone"}]
    await client.list_zones()
    await client.delete_volume(VOLUME)
    await client.query_job(JOB)
    assert len(stub.calls) >= 3
    assert all(params["signatureVersion"] == "3" and params["expires"] for _, params in stub.calls)


@pytest.mark.parametrize("hours", [-3, 3])
async def test_a_server_whose_clock_is_hours_off_is_served_in_its_own_time(stub: Stub, client: CloudStack, hours):
    stub.skew = timedelta(hours=hours)
    await client.stop_vm(VM)
    (sent,) = stub.sent("stopVirtualMachine")
    assert timedelta(seconds=50) < expires_of(sent) - stub.server_now <= timedelta(seconds=62)
    assert client.server_offset is not None
    assert abs(client.server_offset - stub.skew) < timedelta(seconds=3)


async def test_reads_come_right_after_one_401_by_a_wrong_clock(stub: Stub, client: CloudStack):
    stub.skew = timedelta(hours=2)
    assert await client.list_volumes() == []
    assert stub.count("listVolumes") == 2


async def test_the_callers_expiry_is_in_the_servers_time_and_sent_as_it_is(stub: Stub, client: CloudStack):
    stub.skew = timedelta(hours=-1)
    expires_at = (await client.find_server_time()).replace(microsecond=0) + timedelta(seconds=20)
    await client.attach_volume(VOLUME, VM, job_id=JOB, expires_at=expires_at)
    (sent,) = stub.sent("attachVolume")
    assert expires_of(sent) == expires_at
    assert abs(expires_at - stub.server_now) < timedelta(seconds=23)


async def test_nothing_is_sent_after_the_callers_expiry(stub: Stub, client: CloudStack):
    with pytest.raises(CloudStackError, match="expired") as caught:
        await client.detach_volume(VOLUME, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert caught.value.kind is ErrorKind.NOT_SENT
    assert stub.count("detachVolume") == 0


async def test_our_clock_does_not_decide_what_has_expired(stub: Stub, client: CloudStack):
    stub.skew = timedelta(hours=-1)
    await client.find_server_time()
    await client.detach_volume(VOLUME, expires_at=datetime.now(UTC) - timedelta(minutes=59))
    assert stub.count("detachVolume") == 1


async def test_no_change_is_sent_while_the_servers_clock_is_unknown(stub: Stub, client: CloudStack):
    stub.sends_date = False
    with pytest.raises(CloudStackError, match="clock") as caught:
        await client.detach_volume(VOLUME)
    assert caught.value.kind is ErrorKind.NOT_SENT
    assert stub.count("detachVolume") == 0
    assert client.server_offset is None


@pytest.mark.parametrize("status", [200, 401, 502, 503])
async def test_what_stands_before_the_server_does_not_tell_its_time(stub: Stub, client: CloudStack, status: int):
    """Its clock may be hours ahead; what waits for an expiry would take a call on its way for one that is over."""
    before = await client.find_server_time()
    ahead = format_datetime(datetime.now(UTC) + timedelta(hours=3), usegmt=True)
    stub.script("listZones", *[Answer(status, "<html>", "text/html", {"Date": ahead})] * 2)
    with pytest.raises(CloudStackError):
        await client.list_zones()
    assert await client.find_server_time() - before < timedelta(minutes=1)


async def test_many_changes_measure_the_clock_once(stub: Stub, client: CloudStack):
    await asyncio.gather(*(client.detach_volume(VOLUME) for _ in range(20)))
    assert stub.count("detachVolume") == 20
    assert stub.count("listCapabilities") == 1


async def test_many_changes_share_a_measurement_that_fails(stub: Stub):
    stub.script("listCapabilities", *[Hang()] * 9)
    async with CloudStack(stub.endpoint(), timeout_s=0.3) as client:
        results = await asyncio.gather(*(client.detach_volume(VOLUME) for _ in range(50)), return_exceptions=True)
    assert {getattr(result, "kind", None) for result in results} == {ErrorKind.NOT_SENT}
    assert stub.count("listCapabilities") == 1
    assert stub.count("detachVolume") == 0


async def test_a_change_given_up_while_the_clock_is_measured_is_not_sent(stub: Stub, client: CloudStack):
    stub.script("listCapabilities", Hang())
    given_up = asyncio.create_task(client.detach_volume(VOLUME))
    await stub.until(lambda: stub.count("listCapabilities") == 1)
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    await client.list_zones()
    assert stub.count("detachVolume") == 0


@pytest.mark.parametrize("method", ["get", "post"])
async def test_a_change_whose_answer_is_lost_is_sent_once_and_its_outcome_unknown(stub: Stub, method):
    async with CloudStack(stub.endpoint(method=method)) as client:
        await client.list_capabilities()
        stub.script("attachVolume", Cut(), Cut())
        with pytest.raises(CloudStackError) as caught:
            await client.attach_volume(VOLUME, VM, job_id=JOB)
    assert caught.value.kind is ErrorKind.NO_ANSWER
    assert not caught.value.changed_nothing
    assert stub.count("attachVolume") == 1


async def test_a_synchronous_change_is_sent_once_too(stub: Stub, client: CloudStack):
    stub.script("deleteVolume", Cut(), Cut())
    with pytest.raises(CloudStackError) as caught:
        await client.delete_volume(VOLUME)
    assert caught.value.kind is ErrorKind.NO_ANSWER
    assert stub.count("deleteVolume") == 1


async def test_no_connection_means_that_nothing_was_sent(unused_tcp_port: int):
    url = f"http://127.0.0.1:{unused_tcp_port}/client/api"
    async with CloudStack(Endpoint(url, "key-of-ours", "secret-of-ours")) as client:
        for call in (client.list_volumes(), client.detach_volume(VOLUME)):
            with pytest.raises(CloudStackError, match="cannot connect") as caught:
                await call
            assert caught.value.kind is ErrorKind.NOT_SENT
            assert "of-ours" not in caught.value.text


@pytest.mark.parametrize("silence", [Hang(), Drip()])
async def test_silence_ends_at_the_time_limit(stub: Stub, silence):
    async with CloudStack(stub.endpoint(), timeout_s=0.3) as client:
        await client.list_capabilities()
        stub.script("detachVolume", silence)
        with pytest.raises(CloudStackError, match="no answer") as caught:
            await client.detach_volume(VOLUME)
    assert caught.value.kind is ErrorKind.NO_ANSWER


async def test_a_throttled_call_comes_back_when_cloudstack_says(stub: Stub, client: CloudStack):
    text = "The given user has reached his/her account api limit, please retry after 40 ms."
    stub.script("detachVolume", error(429, text, None), error(429, text.replace("40", "[40]"), None))
    job_id = await client.detach_volume(VOLUME, job_id=JOB)
    assert job_id == JOB
    assert stub.count("detachVolume") == 3


async def test_a_throttle_longer_than_the_policy_is_told(stub: Stub, client: CloudStack):
    stub.script("listVolumes", error(429, "please retry after 60000 ms.", None))
    with pytest.raises(CloudStackError) as caught:
        await client.list_volumes()
    assert (caught.value.kind, caught.value.retry_after_s) == (ErrorKind.THROTTLED, 60.0)
    assert caught.value.changed_nothing


async def test_whether_the_server_answers_is_known_whoever_waits_for_a_throttle(stub: Stub):
    stub.script("listVolumes", error(429, "please retry after 3000 ms.", None))
    thrown_back = asyncio.Event()
    async with CloudStack(stub.endpoint(), observer=lambda *_: thrown_back.set()) as client:
        waiting = asyncio.create_task(client.list_volumes())
        await thrown_back.wait()
        async with asyncio.timeout(2):
            await client.list_capabilities()
        assert not waiting.done()
        waiting.cancel()


async def test_where_the_server_wants_to_be_left_alone_that_is_waited_for(stub: Stub, client: CloudStack):
    stub.script("listCapabilities", error(429, "please retry after 40 ms.", None))
    assert await client.list_capabilities()
    assert stub.count("listCapabilities") == 2


async def test_every_request_is_told_to_the_observer(stub: Stub):
    told: list[tuple[str, str]] = []
    async with CloudStack(
        stub.endpoint(), observer=lambda command, result, _: told.append((command, result))
    ) as client:
        stub.script("listVolumes", error(530, "boom", 4250))
        with pytest.raises(CloudStackError):
            await client.list_volumes()
        await client.list_zones()
    assert told == [("listVolumes", "failed"), ("listZones", "ok")]


@pytest.mark.parametrize(
    ("answer", "kind", "errorcode"),
    [
        (error(431, "Unable to execute API command due to missing parameter id"), ErrorKind.REFUSED, 431),
        (error(432, "The given command does not exist"), ErrorKind.REFUSED, 432),
        (error(405, "POST only"), ErrorKind.REFUSED, 405),
        (error(531, "no permission", 4365), ErrorKind.REFUSED, 531),
        (error(401, "unable to verify user credentials", None), ErrorKind.UNAUTHORIZED, 401),
        (error(530, "Internal error", 4250), ErrorKind.FAILED, 530),
        (error(533, "no capacity"), ErrorKind.FAILED, 533),
        (error(599, "from a later version"), ErrorKind.FAILED, 599),
        (error(503, "in maintenance"), ErrorKind.UNAVAILABLE, 503),
        (error(534, "resource unavailable"), ErrorKind.UNAVAILABLE, 534),
        (Answer(432, {"errorresponse": {"errorcode": 432, "errortext": "unknown"}}), ErrorKind.REFUSED, 432),
        (Answer(200, "<html>Welcome</html>", "text/html"), ErrorKind.BROKEN_ANSWER, None),
        (Answer(200, "{broken", "application/json"), ErrorKind.BROKEN_ANSWER, None),
        (Answer(200, {"xresponse": {"errorcode": 431, "errortext": "no"}}), ErrorKind.REFUSED, 431),
        (Answer(200, '{"errorresponse": {}}'), ErrorKind.BROKEN_ANSWER, None),
        (Answer(200, '{"status": {}}'), ErrorKind.BROKEN_ANSWER, None),
        (Answer(200, '{"listsnapshotsresponse": {}}'), ErrorKind.BROKEN_ANSWER, None),
        (Answer(200, '{"listvolumesresponse": []}'), ErrorKind.BROKEN_ANSWER, None),
        (Answer(200, '{"listvolumesresponse": {"count": 3}}'), ErrorKind.BROKEN_ANSWER, None),
        (
            Answer(200, '{"listvolumesresponse": {"count": 1, "volume": [{"name": "no id"}]}}'),
            ErrorKind.BROKEN_ANSWER,
            None,
        ),
        (Answer(200, '{"listvolumesresponse": {"count": 1, "volume": {"id": "x"}}}'), ErrorKind.BROKEN_ANSWER, None),
        (Answer(302, "", "text/html", {"Location": "https://elsewhere.example/"}), ErrorKind.BROKEN_ANSWER, None),
        (Answer(502, "<html>Bad gateway</html>", "text/html"), ErrorKind.BROKEN_ANSWER, None),
        (Answer(503, "<html>Starting</html>", "text/html"), ErrorKind.UNAVAILABLE, None),
    ],
)
async def test_each_error_answer_has_its_class(stub: Stub, client: CloudStack, answer, kind, errorcode):
    stub.script("listVolumes", answer)
    with pytest.raises(CloudStackError) as caught:
        await client.list_volumes()
    assert (caught.value.kind, caught.value.errorcode) == (kind, errorcode)
    assert caught.value.text


async def test_only_a_definite_no_counts_as_nothing_changed(stub: Stub, client: CloudStack):
    verdicts: dict[int | str, bool] = {}
    for code in (401, 431, 503, 530, 534):
        stub.script("detachVolume", error(code, "text"))
        with pytest.raises(CloudStackError) as caught:
            await client.detach_volume(VOLUME)
        verdicts[code] = caught.value.changed_nothing
    stub.script("detachVolume", Answer(503, "<html>", "text/html"))
    with pytest.raises(CloudStackError) as caught:
        await client.detach_volume(VOLUME)
    verdicts["a proxy's 503"] = caught.value.changed_nothing
    assert verdicts == {401: True, 431: True, 503: True, 530: False, 534: False, "a proxy's 503": False}


async def test_errors_never_show_a_credential(stub: Stub):
    async with CloudStack(stub.endpoint(secret="another-secret")) as client:
        with pytest.raises(CloudStackError) as caught:
            await client.list_volumes()
    assert caught.value.kind is ErrorKind.UNAUTHORIZED
    stub.script("listVolumes", error(530, "cannot use the-api-key and the-secret-key", 4250))
    async with CloudStack(stub.endpoint()) as client:
        with pytest.raises(CloudStackError) as told:
            await client.list_volumes()
    assert "the-" not in str(told.value)
    assert "secret" not in repr(stub.endpoint())
