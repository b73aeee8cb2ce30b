"""Bad input gets the contracted code and a sentence that says what to do; nothing happens."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from appliance.web import LARGEST_BODY
from tests.integration.http.stubs import Api

CLEANUP = "/api/v1/failover/pgtest1/cleanup-failed"
STEPS = [
    "analyze-volume-state",
    "detach-attached-volumes",
    "cleanup-snapshots",
    "reattach-all-volumes",
    "reset-vm-state",
]


def problem_is_whole(body: dict[str, Any], status: int, code: str) -> None:
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"/docs/errors/{code}"
    for member in ("title", "detail", "correlation_id"):
        assert body[member]


async def post_raw(api: Api, data: bytes | io.BytesIO, content_type: str = "application/json", **headers: str):
    sent = {"Content-Type": content_type, **{key.replace("_", "-"): value for key, value in headers.items()}}
    async with api.client.post(api.url + CLEANUP, data=data, headers=sent) as response:
        assert response.content_type == "application/problem+json"
        return response.status, await response.json(content_type=None)


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b"{", "body"),
        (b"not json", "body"),
        (b"[]", "body"),
        (b"null", "body"),
        (b'"text"', "body"),
        (b"7", "body"),
        (b"\xff\xfe{}", "body"),
        (b'{"dry_run": NaN}', "body"),
        (b"[" * 30_000, "body"),
        (b'{"dry_run": ' + b"1" * 6_000 + b"}", "body"),
        (b'{"dry_run": true, "dry_run": false}', "dry_run"),
        (rb'{"\ud800": 1}', "body"),
        (rb'{"context_id": "\ud800"}', "body"),
        (rb'{"\ud800": 1, "\ud800": 2}', "\ud800"),
        (b'{"dry_run": "yes"}', "dry_run"),
        (b'{"dry_run": 1}', "dry_run"),
        (b'{"phases": "detach-attached-volumes"}', "phases"),
        (b'{"phases": []}', "phases"),
        (b'{"phases": ["detach"]}', "phases"),
        (b'{"phases": [3]}', "phases"),
        (b'{"phases": ["reset-vm-state", "reset-vm-state"]}', "phases"),
        (b'{"phases": ["detach-attached-volumes", "reattach-all-volumes"]}', "phases"),
        (b'{"context_id": 7}', "context_id"),
        (b'{"context_id": ""}', "context_id"),
        (b'{"context_id": "' + b"x" * 65 + b'"}', "context_id"),
        (b'{"expect_plan": "abc"}', "expect_plan"),
        (b'{"expect_plan": {}}', "expect_plan"),
        (b'{"dryrun": true}', "dryrun"),
        (b'{"destination_vm_id": "x"}', "destination_vm_id"),
        (b'{"snapshots": {}}', "snapshots"),
        (b'{"resume": true}', "resume"),
        (b'{"reason": "because"}', "reason"),
    ],
)
async def test_a_body_that_does_not_fit(api: Api, data: bytes, field: str):
    api.estate.add_vm("pgtest1")
    status, body = await post_raw(api, data)
    assert status == 422
    problem_is_whole(body, 422, "invalid_request")
    assert body["field"] == field
    assert body["success"] is False
    assert body["error"] == f"Failed to cleanup failed execution: {body['detail']}"
    assert api.estate.queued == []


@pytest.mark.parametrize("names", [STEPS[2:4], STEPS[4:]])
async def test_phases_begin_with_the_first_that_is_not_proven(api: Api, names: list[str]):
    api.estate.add_vm("pgtest1")
    async with api.client.post(api.url + CLEANUP, json={"phases": names}, headers={"Prefer": "wait=0"}) as response:
        assert response.status == 202


@pytest.mark.parametrize(
    "prefer", ["wait=abc", "wait", "wait=-1", "wait=1.5", "respond-async=maybe", "nonsense", "=", "wait=99999999999999"]
)
async def test_a_bad_prefer(api: Api, prefer: str):
    api.estate.add_vm("pgtest1")
    async with api.client.post(api.url + CLEANUP, headers={"Prefer": prefer}) as response:
        body = await response.json(content_type=None)
    assert response.status == 422
    problem_is_whole(body, 422, "invalid_request")
    assert body["field"] == "Prefer"
    assert "respond-async" in body["allowed"]
    assert api.estate.queued == []


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("", 422, "invalid_request"),
        ("x" * 256, 422, "invalid_request"),
        ("x" * 10_000, 422, "invalid_request"),
        ("с" * 10_000, 422, "invalid_request"),
        ("nul\x00", 422, "invalid_request"),
        ("pgtest1/", 404, "vm_not_found"),
        (" pgtest1", 404, "vm_not_found"),
        ("../jobs", 404, "vm_not_found"),
        ("\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), 404, "vm_not_found"),
    ],
)
async def test_a_name_that_nobody_has(api: Api, name: str, status: int, code: str):
    api.estate.add_vm("pgtest1")
    url = URL(f"{api.url}/api/v1/failover/{quote(name, safe='')}/cleanup-failed", encoded=True)
    async with api.client.post(url) as response:
        body = await response.json(content_type=None)
    assert response.status == status
    problem_is_whole(body, status, code)
    assert (body["success"], body["vm_name"]) == (False, name)
    assert api.estate.queued == []


@pytest.mark.parametrize(
    "path", ["/api/v1//failover/pgtest1/cleanup-failed", "//api/v1/vm-contexts", "/api/v2/jobs", "/nowhere"]
)
async def test_an_unknown_route(api: Api, path: str):
    async with api.client.get(URL(api.url + path, encoded=True)) as response:
        body = await response.json(content_type=None)
    assert response.status == 404
    problem_is_whole(body, 404, "not_found")


async def test_a_wrong_method(api: Api):
    async with api.client.get(api.url + CLEANUP) as response:
        body = await response.json(content_type=None)
    assert response.status == 405
    problem_is_whole(body, 405, "method_not_allowed")
    assert body["allow"] == ["POST"]
    assert response.headers["Allow"] == "POST"


async def test_a_body_that_is_too_large(api: Api):
    status, body = await post_raw(api, io.BytesIO(b" " * (LARGEST_BODY + 1)))
    assert status == 413
    problem_is_whole(body, 413, "body_too_large")
    assert body["success"] is False


@pytest.mark.parametrize("content_type", ["text/xml", "multipart/form-data; boundary=x"])
async def test_a_body_of_another_type(api: Api, content_type: str):
    status, body = await post_raw(api, b"<dry_run/>", content_type)
    assert status == 415
    problem_is_whole(body, 415, "unsupported_media_type")


async def test_curl_needs_no_content_type(api: Api):
    api.estate.add_vm("pgtest1")
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with api.client.post(api.url + CLEANUP, data=b'{"dry_run": true}', headers=headers) as response:
        assert (await response.json())["dry_run"] is True


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/vm-contexts?limit=0",
        "/api/v1/vm-contexts?limit=501",
        "/api/v1/vm-contexts?limit=ten",
        "/api/v1/vm-contexts?limit=1&limit=2",
        "/api/v1/vm-contexts?status=broken",
        "/api/v1/vm-contexts?needs_cleanup=perhaps",
        "/api/v1/vm-contexts?colour=red",
        "/api/v1/vm-contexts/",
        "/api/v1/vm-contexts?q=%00",
        f"/api/v1/vm-contexts?q={'x' * 2000}",
        "/api/v1/jobs?status=dancing",
        "/api/v1/jobs?since=yesterday",
        "/api/v1/jobs?until=2026-01-31T03:00:00",
        "/api/v1/events?last_event_id=-1",
        "/api/v1/failover/x/cleanup-failed?dry_run=true",
    ],
)
async def test_a_query_that_does_not_fit(api: Api, path: str):
    method = "POST" if "failover" in path else "GET"
    async with api.client.request(method, URL(api.url + path, encoded=True)) as response:
        body = await response.json(content_type=None)
    assert response.status == 422
    problem_is_whole(body, 422, "invalid_request")
    assert body["field"]


async def test_a_bad_last_event_id(api: Api):
    async with api.client.get(f"{api.url}/api/v1/events", headers={"Last-Event-ID": "x"}) as response:
        assert response.status == 422


async def raw_exchange(api: Api, sent: bytes) -> tuple[int, dict[str, Any]]:
    url = URL(api.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(sent)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


async def test_a_path_beyond_every_limit(api: Api):
    status, body = await raw_exchange(api, b"POST /" + b"x" * (256 * 1024 + 100))
    assert status == 422
    problem_is_whole(body, 422, "invalid_request")


async def test_what_is_not_http(api: Api):
    status, body = await raw_exchange(api, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    assert status == 400
    problem_is_whole(body, 400, "bad_request")


async def test_a_body_in_broken_chunks(api: Api):
    head = f"POST {CLEANUP} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    status, body = await raw_exchange(api, head.encode() + b"zz\r\n{}\r\n")
    assert status == 400
    problem_is_whole(body, 400, "bad_request")


async def test_a_client_that_goes_away_in_the_middle_of_its_body(api: Api, caplog: pytest.LogCaptureFixture):
    url = URL(api.url)
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"POST {CLEANUP} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(api.answered.wait(), 5)
    assert [record.levelname for record in caplog.records if record.levelname == "ERROR"] == []
    assert api.estate.queued == []
