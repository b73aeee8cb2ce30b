"""The protocol on the wire: signatures, envelopes, codes, methods, faults, throttling."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from ossea.simulator.admin_client import AdminClient
from tests.integration.simulator.process import V1, VM, Sim
from tests.integration.simulator.wire import body, finish, get, post, send, signed

REFUSED = "unable to verify user credentials and/or request signature"


@pytest.mark.parametrize(
    "name", ["PhilB Test machine", "a~b", "db/prod #7", "сервер-1", "1+1=2&x", "*-._!'()", "[x]%20"]
)
async def test_odd_characters_are_signed_as_java_does(admin: AdminClient, shared_sim: Sim, name: str) -> None:
    await admin.patch_volume(V1, name=name)
    rows = (await body(shared_sim.api, "listVolumes", name=name))["volume"]
    assert [row["name"] for row in rows] == [name]


async def test_post_form(admin: AdminClient, shared_sim: Sim) -> None:
    params = signed(command="listVolumes", id=V1)
    async with aiohttp.ClientSession() as session, session.post(shared_sim.api, data=params) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/json;charset=UTF-8"
        assert (await response.json())["listvolumesresponse"]["count"] == 1


async def test_401_for_a_bad_signature_and_an_unknown_command(admin: AdminClient, shared_sim: Sim) -> None:
    status, answer = await send(shared_sim.api, signed("wrong", command="listZones"))
    assert (status, answer) == (
        401,
        {"listzonesresponse": {"uuidList": [], "errorcode": 401, "errortext": REFUSED}},
    )
    status, answer = await get(shared_sim.api, "launchRocket")
    assert (status, answer["errorresponse"]["errortext"]) == (401, REFUSED)
    await admin.put_settings(signature_check=False)
    assert (await send(shared_sim.api, {"command": "listZones"}))[0] == 200


async def test_432_without_a_command(admin: AdminClient, shared_sim: Sim) -> None:
    status, answer = await send(shared_sim.api, signed())
    assert (status, answer["errorresponse"]["errorcode"]) == (432, 432)


async def test_431_envelope(admin: AdminClient, shared_sim: Sim) -> None:
    status, answer = await get(shared_sim.api, "attachVolume", virtualmachineid=VM)
    assert status == 431
    assert answer == {
        "attachvolumeresponse": {
            "uuidList": [],
            "errorcode": 431,
            "cserrorcode": 9999,
            "errortext": "Unable to execute API command attachvolume due to missing parameter id",
        }
    }


async def test_an_empty_list_has_no_count(admin: AdminClient, shared_sim: Sim) -> None:
    assert await get(shared_sim.api, "listVolumes", virtualmachineid=VM) == (200, {"listvolumesresponse": {}})


async def test_expires_is_measured_by_the_servers_clock(admin: AdminClient, shared_sim: Sim) -> None:
    await admin.put_settings(clock_offset_s=3600)
    half_an_hour = (datetime.now(UTC) + timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%S+0000")
    params = signed(command="listZones", signatureVersion="3", expires=half_an_hour)
    async with aiohttp.ClientSession() as session, session.get(shared_sim.api, params=params) as response:
        assert response.status == 401
        ahead = parsedate_to_datetime(response.headers["Date"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < ahead < timedelta(minutes=61)


async def test_lost_answer_executes_and_lost_request_does_not(admin: AdminClient, shared_sim: Sim) -> None:
    await admin.add_fault("attachVolume", "lost_request")
    with pytest.raises(aiohttp.ClientConnectionError):
        await post(shared_sim.api, "attachVolume", id=V1, virtualmachineid=VM)
    assert (await body(shared_sim.api, "listVolumes", id=V1))["volume"][0].get("jobid") is None
    await admin.add_fault("attachVolume", "lost_answer")
    with pytest.raises(aiohttp.ClientConnectionError):
        await post(shared_sim.api, "attachVolume", id=V1, virtualmachineid=VM)
    assert "jobid" in (await body(shared_sim.api, "listVolumes", id=V1))["volume"][0]
    calls = [call for call in await admin.calls() if call["command"] == "attachVolume"]
    assert [(call["faults"], call["status"], call["jobid"] is not None) for call in calls] == [
        (["lost_request"], None, False),
        (["lost_answer"], 200, True),
    ]


@pytest.mark.parametrize(
    ("kind", "fields", "status"), [("http_status", {"errorcode": 503}, 503), ("non_json", {}, 200)]
)
async def test_answers_that_are_no_json(
    admin: AdminClient, shared_sim: Sim, kind: str, fields: dict[str, int], status: int
) -> None:
    await admin.add_fault("listZones", kind, **fields)
    params = signed(command="listZones")
    async with aiohttp.ClientSession() as session, session.get(shared_sim.api, params=params) as response:
        assert (response.status, response.content_type) == (status, "text/html")
    assert (await get(shared_sim.api, "listZones"))[0] == 200


async def test_a_delayed_answer_comes_behind_later_ones(admin: AdminClient, shared_sim: Sim) -> None:
    await admin.add_fault("listZones", "delay", delay_s=0.3)
    delayed = asyncio.create_task(get(shared_sim.api, "listZones"))
    while not await admin.calls():
        pass
    assert (await get(shared_sim.api, "listZones"))[0] == 200
    assert not delayed.done()
    assert (await delayed)[0] == 200


async def test_latency_delays_every_call(admin: AdminClient, shared_sim: Sim) -> None:
    await admin.put_settings(latency_s=0.2)
    call = asyncio.create_task(get(shared_sim.api, "listZones"))
    while not await admin.calls():
        pass
    assert not call.done()
    assert (await call)[0] == 200


async def test_throttling(admin: AdminClient, shared_sim: Sim) -> None:
    await admin.put_settings(throttle_per_s=3)
    answers = [await get(shared_sim.api, "listZones") for _ in range(30)]
    refused = [answer for status, answer in answers if status == 429]
    assert refused
    assert "please retry after" in refused[0]["listzonesresponse"]["errortext"]


async def test_the_call_log_shows_no_secrets(admin: AdminClient, shared_sim: Sim) -> None:
    await finish(shared_sim.api, "detachVolume", id=V1)
    call = (await admin.calls())[0]
    assert (call["command"], call["params"], call["status"]) == ("detachVolume", {"response": "json", "id": V1}, 200)
    assert (await admin.calls(after=call["seq"]))[0]["command"] == "queryAsyncJobResult"
    assert [entry["command"] for entry in await admin.calls(changes_only=True)] == ["detachVolume"]
