"""The words in the body of the main job, and resuming a parked run."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from oma.domain.audit import AuditAction
from oma.domain.states import JobState
from oma.domain.words import Words
from tests.integration.http.stubs import Api

SNAPSHOT = "22222222-2222-4222-8222-222222222222"
CLEANUP = "/api/v1/failover/pgtest1/cleanup-failed"
WHY = "agreed with the DR lead"


async def post(api: Api, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, Any]]:
    sent = {"Prefer": "wait=0", **{key.replace("_", "-"): value for key, value in headers.items()}}
    async with api.client.post(api.url + path, json=body, headers=sent) as response:
        return response.status, await response.json(content_type=None)


async def parked(api: Api) -> str:
    api.estate.add_vm("pgtest1")
    status, body = await post(api, CLEANUP)
    assert status == 202
    api.estate.end_job(body["job_id"], JobState.PARKED)
    return str(body["job_id"])


async def test_words_reach_the_run_with_their_reason(api: Api):
    records = api.estate.add_vm("pgtest1")
    volume_id = records.volumes[0].volume_id
    status, _ = await post(
        api, CLEANUP, {"end_holders": True, "snapshots": {volume_id: SNAPSHOT}, "reason": WHY, "force": None}
    )
    assert status in {202, 409}
    audited = [one.words for one in api.estate.audit] or [one.request["words"] for one in api.estate.queued]
    assert Words.from_json(audited[0]) == Words(end_holders=True, snapshots=((volume_id, SNAPSHOT),), reason=WHY)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"force": True}, "reason"),
        ({"end_test": True, "reason": " "}, "reason"),
        ({"end_test": True, "reason": "x" * 100_000}, "reason"),
        ({"reason": WHY}, "reason"),
        ({"force": True, "end_test": True, "reason": WHY}, "force"),
        ({"force": True, "end_holders": True, "reason": WHY}, "force"),
        ({"destination_vm_id": SNAPSHOT}, "destination_vm_id"),
        ({"force": True, "reason": WHY, "destination_vm_id": "vm-7"}, "destination_vm_id"),
        ({"snapshots": {"a": "b"}, "reason": WHY}, "snapshots"),
        ({"snapshots": {SNAPSHOT: SNAPSHOT}, "reason": WHY}, "snapshots"),
        ({"resume": True, "dry_run": True}, "dry_run"),
        ({"resume": True, "expect_plan": "0" * 64}, "expect_plan"),
        ({"resume": True, "end_test": True, "reason": WHY}, "end_test"),
        ({"resume": True}, "resume"),
        ({"force": True, "reason": WHY}, "force"),
        ({"forced": True}, "forced"),
    ],
)
async def test_what_does_not_fit_is_named_and_nothing_is_begun(api: Api, body: dict[str, Any], field: str):
    api.estate.add_vm("pgtest1")
    status, answer = await post(api, CLEANUP, body)
    assert (status, answer["code"], answer["field"]) == (422, "invalid_request", field)
    assert answer["success"] is False
    assert answer["next"]
    assert api.estate.queued == []
    assert api.estate.resumed == []


async def test_a_refusal_and_a_dry_run_are_audited(api: Api):
    api.estate.add_vm("pgtest1")
    await post(api, CLEANUP, {"force": True, "reason": WHY})
    await post(api, CLEANUP, {"dry_run": True})
    await post(api, CLEANUP.replace("pgtest1", "nobody"))
    assert [(one.action, one.decision, one.reason) for one in api.estate.audit] == [
        (AuditAction.REFUSED, "invalid_request", WHY),
        (AuditAction.DRY_RUN, "planned", None),
    ]


async def test_a_parked_run_is_resumed_by_its_vm(api: Api):
    job_id = await parked(api)
    status, body = await post(api, CLEANUP, {"resume": True, "force": True, "reason": WHY}, Idempotency_Key="k-1")
    assert (status, body["job_id"]) == (202, job_id)
    (resumed,) = api.estate.resumed
    assert (resumed.job_id, resumed.idempotency_key) == (job_id, "k-1")
    assert resumed.words == Words(force=True, resume=True, reason=WHY)


async def test_a_parked_run_is_resumed_by_its_id_and_its_end_is_the_answer(api: Api):
    job_id = await parked(api)
    resumed = asyncio.Event()
    api.estate.on_queued = resumed.set
    call = asyncio.create_task(post(api, f"/api/v1/jobs/{job_id}/resume", Prefer="wait=5"))
    async with asyncio.timeout(5):
        await resumed.wait()
    api.estate.end_job(job_id, result={"replica": "ready", "next": "Nothing."})
    status, body = await call
    assert (status, body["job_id"], body["replica"]) == (200, job_id, "ready")
    assert api.estate.resumed[0].words == Words(resume=True)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"force": True}, "reason"),
        ({"end_test": True, "reason": WHY}, "end_test"),
        ({"resume": True}, "resume"),
        ({"force": "true", "reason": WHY}, "force"),
    ],
)
async def test_a_resume_that_does_not_fit(api: Api, body: dict[str, Any], field: str):
    job_id = await parked(api)
    status, answer = await post(api, f"/api/v1/jobs/{job_id}/resume", body)
    assert (status, answer["field"]) == (422, field)
    assert api.estate.resumed == []


async def test_resuming_what_nobody_knows(api: Api):
    status, answer = await post(api, "/api/v1/jobs/nobody/resume")
    assert (status, answer["code"]) == (404, "job_not_found")
