"""403 cross_site: a page of somebody else can't press our buttons."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.http.stubs import Api, served

PATH = "/api/v1/failover/pgtest1/cleanup-failed"


async def send(api: Api, method: str, headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    async with api.client.request(method, api.url + PATH, headers={"Prefer": "wait=0", **headers}) as response:
        return response.status, await response.json(content_type=None)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:8082"},
        {"Host": "192.168.1.5:8082"},
        {"Host": "[bad"},
    ],
)
async def test_a_foreign_page_is_refused(api: Api, headers: dict[str, str]):
    api.estate.add_vm("pgtest1")
    status, body = await send(api, "POST", headers)
    assert (status, body["code"]) == (403, "cross_site")
    assert (body["success"], body["vm_name"]) == (False, "pgtest1")
    assert body["error"].startswith("Failed to cleanup failed execution: ")
    assert api.estate.queued == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Host": "localhost:8082"},
        {"Host": "[::1]:1"},
    ],
)
async def test_curl_and_our_own_page_work(api: Api, headers: dict[str, str]):
    api.estate.add_vm("pgtest1")
    assert (await send(api, "POST", headers))[0] == 202


async def test_our_own_origin_works(api: Api):
    api.estate.add_vm("pgtest1")
    assert (await send(api, "POST", {"Origin": api.url}))[0] == 202


async def test_an_allowed_host():
    async with served(allowed_hosts=("oma.example.org",)) as api:
        api.estate.add_vm("pgtest1")
        assert (await send(api, "POST", {"Host": "oma.example.org"}))[0] == 202
        assert (await send(api, "POST", {"Host": "other.example.org"}))[0] == 403


async def test_looking_is_not_changing(api: Api):
    async with api.client.get(api.url + "/livez", headers={"Origin": "http://evil.example"}) as response:
        assert response.status == 200
