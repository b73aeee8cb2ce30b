"""`POST /api/v1/jobs/{id}/cancel`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oma.domain.states import JobState
from tests.integration.http.stubs import Api
from tests.integration.http.test_words import CLEANUP, WHY, post


async def test_a_running_one_is_accepted_with_its_address(api: Api):
    api.estate.add_vm("pgtest1")
    _, body = await post(api, CLEANUP)
    async with api.client.post(f"{api.url}/api/v1/jobs/{body['job_id']}/cancel", json={"reason": WHY}) as response:
        assert response.status == 202
        assert response.headers["Location"] == f"/api/v1/jobs/{body['job_id']}"
        assert (await response.json())["id"] == body["job_id"]
    (cancelled,) = api.estate.cancelled
    assert (cancelled.asked.actor, cancelled.asked.reason) == ("api", WHY)


async def test_one_that_is_cancelled_answers_so(api: Api):
    api.estate.add_vm("pgtest1")
    _, body = await post(api, CLEANUP)
    job_id = body["job_id"]
    api.estate.jobs[job_id] = replace(api.estate.jobs[job_id], state=JobState.CANCELLED)
    status, answer = await post(api, f"/api/v1/jobs/{job_id}/cancel")
    assert (status, answer["status"]) == (200, "cancelled")


@pytest.mark.parametrize("body", [{"reason": " "}, {"why": WHY}, {"reason": 1}, [WHY]])
async def test_what_is_no_reason_is_refused(api: Api, body: object):
    api.estate.add_vm("pgtest1")
    _, run = await post(api, CLEANUP)
    status, answer = await post(api, f"/api/v1/jobs/{run['job_id']}/cancel", body)
    assert (status, answer["code"]) == (422, "invalid_request")
    assert api.estate.cancelled == []


async def test_no_such_job_is_not_found(api: Api):
    status, answer = await post(api, "/api/v1/jobs/nothing/cancel")
    assert (status, answer["code"]) == (404, "job_not_found")
