"""The emergency stop as callers see it."""

from __future__ import annotations

from typing import Any

import pytest

from oma.domain.jobs import OPERATION
from tests.integration.http.stubs import Api

REASON = "the array reboots \U0001f9ea"


async def post(api: Api, verb: str, **body: Any) -> tuple[int, dict[str, Any]]:
    async with api.client.post(f"{api.url}/api/v1/control/{verb}", json=body) as response:
        return response.status, await response.json(content_type=None)


async def show(api: Api) -> dict[str, Any]:
    async with api.client.get(f"{api.url}/api/v1/control") as response:
        assert response.status == 200
        found: dict[str, Any] = await response.json()
        return found


async def test_everything_is_paused_shown_and_let_go_on(api: Api) -> None:
    assert await show(api) == {"paused": False, "pauses": []}
    status, body = await post(api, "pause", scope="all", reason=REASON)
    assert status == 200
    assert body == {
        "success": True,
        "changed": True,
        "message": f"Everything is paused by api: {REASON}. Runs end at their next safe point. "
        "Let go on with: oma resume",
        **await show(api),
    }
    (pause,) = body["pauses"]
    assert pause == {
        "scope": "all",
        "operation": None,
        "vm_name": None,
        "context_id": None,
        "reason": REASON,
        "by": "api",
        "since": "2026-01-31T03:00:00.123456Z",
        "lift": "oma resume",
        "sentence": f"Everything is paused by api: {REASON}",
    }
    status, body = await post(api, "resume", scope="all")
    assert (status, body["changed"], body["paused"]) == (200, True, False)
    status, body = await post(api, "resume", scope="all")
    assert (status, body["changed"]) == (200, False)


async def test_a_new_run_is_refused_with_when_to_ask_again(api: Api) -> None:
    records = api.estate.add_vm("pgtest1")
    await post(api, "pause", scope="vm", vm_name="pgtest1", reason=REASON)
    async with api.client.post(f"{api.url}/api/v1/failover/pgtest1/cleanup-failed") as response:
        body = await response.json(content_type=None)
    assert response.status == 503
    assert response.headers["Retry-After"] == "60"
    assert (body["code"], body["retry"], body["success"]) == ("paused", "later", False)
    assert REASON in body["detail"]
    lift = f"oma resume --vm pgtest1 --context-id {records.context.context_id}"
    assert body["next"] == f"Wait until the pause is lifted, or lift it: {lift}"
    assert body["evidence"]["lift"] == lift
    assert api.estate.queued == []
    assert [entry.decision for entry in api.estate.audit] == ["paused"]
    async with api.client.post(f"{api.url}/api/v1/failover/pgtest1/cleanup-failed", json={"dry_run": True}) as response:
        assert response.status == 200


async def test_an_operation_is_paused_by_its_name(api: Api) -> None:
    status, body = await post(api, "pause", scope="operation", operation=OPERATION, reason=REASON)
    assert (status, body["pauses"][0]["operation"]) == (200, OPERATION)
    assert body["pauses"][0]["lift"] == f"oma resume --operation {OPERATION}"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"reason": "x"}, "scope"),
        ({"scope": "vms", "reason": "x"}, "scope"),
        ({"scope": ["all"], "reason": "x"}, "scope"),
        ({"scope": "all"}, "reason"),
        ({"scope": "all", "reason": " "}, "reason"),
        ({"scope": "all", "reason": "two\nlines"}, "reason"),
        ({"scope": "all", "reason": 7}, "reason"),
        ({"scope": "all", "vm_name": "pgtest1", "reason": "x"}, "vm_name"),
        ({"scope": "vm", "reason": "x"}, "vm_name"),
        ({"scope": "vm", "vm_name": ["a"], "reason": "x"}, "vm_name"),
        ({"scope": "vm", "vm_name": "pgtest1", "context_id": "", "reason": "x"}, "context_id"),
        ({"scope": "operation", "reason": "x"}, "operation"),
        ({"scope": "operation", "operation": "everything", "reason": "x"}, "operation"),
        ({"scope": "operation", "operation": ["x"], "reason": "x"}, "operation"),
        ({"scope": "all", "for": "1h", "reason": "x"}, "for"),
    ],
)
async def test_what_does_not_fit_is_named_and_nothing_is_paused(api: Api, body: dict[str, Any], field: str) -> None:
    async with api.client.post(f"{api.url}/api/v1/control/pause", json=body) as response:
        problem = await response.json(content_type=None)
    assert (response.status, problem["code"], problem["field"]) == (422, "invalid_request", field)
    assert api.estate.controls.changes == []


async def test_a_vm_that_is_not_there_is_not_held(api: Api) -> None:
    status, body = await post(api, "pause", scope="vm", vm_name="nobody", reason=REASON)
    assert (status, body["code"]) == (404, "vm_not_found")


async def test_a_page_of_another_site_cannot_pause(api: Api) -> None:
    async with api.client.post(
        f"{api.url}/api/v1/control/pause",
        json={"scope": "all", "reason": REASON},
        headers={"Origin": "https://elsewhere.example"},
    ) as response:
        assert response.status == 403
    assert api.estate.controls.changes == []
