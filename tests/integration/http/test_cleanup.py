"""The main job as callers see it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from appliance.web import serve_site
from oma.domain.events import EventType
from oma.domain.states import JobState, Phase
from oma.http.app import build_app
from oma.http.site import Site
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import FIGURES, open_stage
from tests.integration.http.stubs import Api, served


def address(api: Api, name: str) -> str:
    return f"{api.url}/api/v1/failover/{name}/cleanup-failed"


async def post(
    api: Api, name: str, *, json: object = None, **headers: str
) -> tuple[int, dict[str, Any], aiohttp.ClientResponse]:
    url = URL(address(api, quote(name, safe="")), encoded=True)
    sent = {key.replace("_", "-"): value for key, value in headers.items()}
    async with api.client.post(url, json=json, headers=sent) as response:
        return response.status, await response.json(content_type=None), response


async def queued(api: Api) -> str:
    """The id of the one queued job, once its caller waits for it."""
    async with asyncio.timeout(5):
        await api.estate.waited_for.wait()
    return api.estate.queued[0].job_id


async def test_a_finished_run_answers_the_contract_word_for_word(api: Api):
    api.estate.add_vm("pgtest1")
    call = asyncio.create_task(post(api, "pgtest1", X_Correlation_ID="night-shift-7"))
    job_id = await queued(api)
    api.estate.end_job(job_id, result={"replica": "ready", "next": "Nothing has to be done before the next failover."})
    status, body, response = await call
    assert status == 200
    assert response.headers["X-Correlation-ID"] == "night-shift-7"
    phases = body.pop("phases")
    assert body == {
        "success": True,
        "message": "Failed execution cleanup completed for pgtest1",
        "vm_name": "pgtest1",
        "timestamp": "2026-01-31T03:00:31.623456Z",
        "job_id": job_id,
        "correlation_id": "night-shift-7",
        "duration_seconds": 31.5,
        "replica": "ready",
        "next": "Nothing has to be done before the next failover.",
    }
    assert [phase["name"] for phase in phases] == [phase.value for phase in Phase]
    assert [len(phase["actions"]) for phase in phases] == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("name", ["PhilB Test machine", "db/prod #7", "сервер-1", "100%25 odd?&=", "a//b", "..", "с+b"])
async def test_a_name_is_taken_as_it_was_encoded(api: Api, name: str):
    api.estate.add_vm(name)
    status, body, _ = await post(api, name, Prefer="respond-async")
    assert (status, body["vm_name"]) == (202, name)
    assert api.estate.queued[0].plan.vm_name == name


async def test_a_caller_that_does_not_wait_gets_the_address(api: Api):
    api.estate.add_vm("pgtest1")
    status, body, response = await post(api, "pgtest1", Prefer="respond-async")
    assert status == 202
    assert response.headers["Location"] == f"/api/v1/jobs/{body['job_id']}"
    assert response.headers["Preference-Applied"] == "respond-async"
    async with api.client.get(api.url + response.headers["Location"]) as shown:
        assert shown.status == 200


@pytest.mark.parametrize(
    "prefer", ["wait=0", "respond-async, wait=0", 'WAIT="0"', "respond-async; x=1", "return=minimal, wait=0"]
)
async def test_every_way_to_ask_for_no_wait(api: Api, prefer: str):
    api.estate.add_vm("pgtest1")
    status, _, _ = await post(api, "pgtest1", Prefer=prefer)
    assert status == 202


async def test_the_longest_wait_ends_with_202():
    async with served(sync_wait_s=0.05) as api:
        api.estate.add_vm("pgtest1")
        status, body, _ = await post(api, "pgtest1", Prefer="wait=3000")
        assert (status, body["success"], body["status"]) == (202, True, "queued")


async def test_a_stopping_daemon_answers_202_and_takes_no_more(api: Api):
    api.estate.add_vm("pgtest1")
    api.estate.add_vm("pgtest2")
    call = asyncio.create_task(post(api, "pgtest1"))
    await queued(api)
    api.deps.stopping.set()
    api.estate.bus.close()
    status, _, response = await call
    assert status == 202
    assert response.headers["Location"].startswith("/api/v1/jobs/")
    status, body, response = await post(api, "pgtest2")
    assert (status, body["code"]) == (503, "shutting_down")
    assert int(response.headers["Retry-After"]) > 0
    assert len(api.estate.queued) == 1


async def test_a_stop_between_queueing_and_waiting_lets_nobody_wait(api: Api):
    api.estate.add_vm("pgtest1")

    def stop() -> None:
        api.deps.stopping.set()
        api.estate.bus.close()

    api.estate.on_queued = stop
    status, _, _ = await asyncio.wait_for(post(api, "pgtest1"), 5)
    assert status == 202


async def test_a_caller_that_goes_away_stops_nothing(api: Api):
    api.estate.add_vm("pgtest1")
    call = asyncio.create_task(post(api, "pgtest1"))
    job_id = await queued(api)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    api.estate.end_job(job_id, result={"replica": "ready", "next": "Nothing."})
    async with api.client.get(f"{api.url}/api/v1/jobs/{job_id}") as shown:
        assert (await shown.json())["status"] == "completed"


KEY = "0b9ae1a5-night-shift"


async def test_the_same_key_and_body_wait_for_the_one_run_and_get_its_answer(api: Api):
    api.estate.add_vm("pgtest1")
    first = asyncio.create_task(post(api, "pgtest1", Idempotency_Key=KEY, X_Correlation_ID="first"))
    job_id = await queued(api)
    api.estate.waited_for.clear()
    second = asyncio.create_task(post(api, "pgtest1", json={}, Idempotency_Key=KEY))
    await queued(api)
    api.estate.end_job(job_id, result={"replica": "ready", "next": "-"})
    status, body, _ = await first
    assert (status, body["job_id"], body["correlation_id"]) == (200, job_id, "first")
    assert (await second)[:2] == (200, body)
    assert (await post(api, "pgtest1", Idempotency_Key=KEY, Prefer="respond-async"))[:2] == (200, body)
    assert len(api.estate.queued) == 1


async def test_the_key_of_a_parked_run_gives_its_failure_again(api: Api):
    api.estate.add_vm("pgtest1")
    _, body, _ = await post(api, "pgtest1", Idempotency_Key=KEY, Prefer="respond-async")
    error = {"code": "cleanup_failed", "detail": "The revert failed.", "issue_id": "i-1"}
    api.estate.end_job(body["job_id"], JobState.PARKED, error=error)
    for _ in range(2):
        status, again, _ = await post(api, "pgtest1", Idempotency_Key=KEY)
        assert (status, again["code"], again["job_id"], again["issue_id"]) == (
            500,
            "cleanup_failed",
            body["job_id"],
            "i-1",
        )


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("pgtest1", {"phases": ["detach-attached-volumes"]}),
        ("pgtest1", {"context_id": "ctx-1"}),
        ("pgtest1", {"dry_run": True}),
        ("pgtest2", {}),
    ],
)
async def test_a_key_is_for_one_request(api: Api, name: str, body: dict[str, Any]):
    api.estate.add_vm("pgtest1")
    api.estate.add_vm("pgtest2")
    _, first, _ = await post(api, "pgtest1", Idempotency_Key=KEY, Prefer="respond-async")
    status, problem, _ = await post(api, name, json=body, Idempotency_Key=KEY, Prefer="respond-async")
    assert (status, problem["code"], problem["job_id"]) == (422, "idempotency_key_reused", first["job_id"])
    assert len(api.estate.queued) == 1


async def test_a_refused_request_may_be_asked_again_under_its_key(api: Api):
    records = api.estate.add_vm("pgtest1", status="ready_for_failover")
    status, body, _ = await post(api, "pgtest1", Idempotency_Key=KEY)
    assert (status, body["code"]) == (409, "nothing_to_clean")
    context = replace(records.context, current_status="cleanup_required")
    api.estate.vms[context.context_id] = replace(records, context=context)
    status, _, _ = await post(api, "pgtest1", Idempotency_Key=KEY, Prefer="respond-async")
    assert status == 202


@pytest.mark.parametrize("prefer", ["respond-async", "wait=0"])
async def test_who_does_not_wait_does_not_wait_for_a_busy_volume_either(prefer: str):
    async with open_stage(figures=replace(FIGURES, busy_wait_s=1e9)) as stage, aiohttp.ClientSession() as client:
        vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
        stage.world.change_volume(vm.volume_id(0), state="Snapshotting")
        runner, url = await serve_site(build_app(Site(stage.deps)), "127.0.0.1", 0, shutdown_timeout_s=1)
        try:
            async with asyncio.timeout(20):
                address = f"{url}/api/v1/failover/{vm.name}/cleanup-failed"
                async with client.post(address, headers={"Prefer": prefer}) as response:
                    body = await response.json(content_type=None)
        finally:
            await runner.cleanup()
        assert (response.status, [one["code"] for one in body["refusals"]]) == (409, ["volume_busy"])
        assert stage.world.orders == []


async def test_a_dry_run_shows_the_plan_and_writes_nothing(api: Api):
    api.estate.add_vm("pgtest1")
    status, body, _ = await post(api, "pgtest1", json={"dry_run": True})
    assert status == 200
    assert body["success"] is True
    assert "nothing was changed" in body["message"]
    assert body["plan"]["plan_digest"] == body["plan_digest"]
    assert {action["phase"] for action in body["plan"]["actions"]} <= {phase.value for phase in Phase}
    assert body["plan"]["observed"]
    assert "risks" in body["plan"]
    assert api.estate.queued == []


async def test_the_shown_plan_can_be_insisted_on(api: Api):
    records = api.estate.add_vm("pgtest1")
    _, shown, _ = await post(api, "pgtest1", json={"dry_run": True})
    api.estate.vms[records.context.context_id] = replace(
        records, context=replace(records.context, current_status="failed")
    )
    status, body, _ = await post(api, "pgtest1", json={"expect_plan": shown["plan_digest"]})
    assert status == 409
    assert body["code"] in ("plan_stale", "nothing_to_clean")
    api.estate.vms[records.context.context_id] = records
    status, _, _ = await post(api, "pgtest1", json={"expect_plan": shown["plan_digest"]}, Prefer="wait=0")
    assert status == 202


async def test_a_partial_run_says_so(api: Api):
    api.estate.add_vm("pgtest1")
    call = asyncio.create_task(post(api, "pgtest1", json={"phases": ["detach-attached-volumes"]}))
    job_id = await queued(api)
    assert api.estate.queued[0].request["phases"] == ["analyze-volume-state", "detach-attached-volumes"]
    message = "Ran detach-attached-volumes for pgtest1; the VM is not cleaned up"
    api.estate.end_job(job_id, result={"partial": True, "message": message, "replica": "unknown", "next": "Go on."})
    status, body, _ = await call
    assert (status, body["partial"], body["message"]) == (200, True, message)


async def test_a_parked_run_is_a_problem_with_all_that_a_person_needs(api: Api):
    api.estate.add_vm("pgtest1")
    call = asyncio.create_task(post(api, "pgtest1"))
    job_id = await queued(api)
    error = {
        "code": "cleanup_failed",
        "detail": "The revert of pgtest1-disk-0 failed.",
        "phase": "cleanup-snapshots",
        "action": "revert_snapshot",
        "upstream": {"system": "cloudstack", "code": "530", "text": "Failed to revert"},
        "issue_id": "issue-1",
        "guidance": ["Look at the volume."],
    }
    api.estate.end_job(job_id, JobState.PARKED, error=error)
    status, body, response = await call
    assert status == 500
    assert response.content_type == "application/problem+json"
    assert body["success"] is False
    assert body["error"] == "Failed to cleanup failed execution: The revert of pgtest1-disk-0 failed."
    assert body["vm_name"] == "pgtest1"
    assert body["job_id"] == job_id
    assert body["upstream"] == error["upstream"]
    assert body["issue_id"] == "issue-1"
    assert body["guidance"] == ["Look at the volume."]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("cloudstack_error", 502),
        ("volume_daemon_error", 502),
        ("cloudstack_timeout", 504),
        ("volume_daemon_timeout", 504),
    ],
)
async def test_an_upstream_that_broke_after_the_first_change(api: Api, code: str, status: int):
    api.estate.add_vm("pgtest1")
    call = asyncio.create_task(post(api, "pgtest1"))
    job_id = await queued(api)
    api.estate.end_job(job_id, JobState.PARKED, error={"code": code, "detail": "It broke."})
    answered, body, _ = await call
    assert (answered, body["code"], body["job_id"]) == (status, code, job_id)


async def test_an_overdue_operation_is_told_at_once_and_followed_on(api: Api):
    api.estate.add_vm("pgtest1")
    call = asyncio.create_task(post(api, "pgtest1"))
    job_id = await queued(api)
    api.estate.emit(EventType.ACTION_OVERDUE, job_id, action_id="ac-1", detail="The detach takes longer than 60 s.")
    status, body, _ = await call
    assert (status, body["code"], body["job_id"]) == (504, "volume_daemon_timeout", job_id)
    assert body["success"] is False
    assert api.estate.jobs[job_id].state is JobState.QUEUED


async def test_two_vms_of_one_name(api: Api):
    api.estate.add_vm("twin", vcenter="vc-a")
    second = api.estate.add_vm("twin", vcenter="vc-b")
    status, body, _ = await post(api, "twin")
    assert (status, body["code"]) == (409, "ambiguous_vm_name")
    assert {candidate["vcenter_host"] for candidate in body["candidates"]} == {"vc-a", "vc-b"}
    status, _, _ = await post(api, "twin", json={"context_id": second.context.context_id}, Prefer="wait=0")
    assert status == 202
    assert api.estate.queued[0].plan.context_id == second.context.context_id


async def test_a_near_name_is_not_the_name(api: Api):
    api.estate.add_vm("PGtest1")
    status, body, _ = await post(api, "pgtest1")
    assert (status, body["code"], body["near_matches"]) == (404, "vm_not_found", ["PGtest1"])


async def test_nothing_to_clean(api: Api):
    api.estate.add_vm("pgtest1", status="ready_for_failover")
    status, body, _ = await post(api, "pgtest1")
    assert (status, body["code"]) == (409, "nothing_to_clean")
    assert body["refusals"][0]["code"] == "nothing_to_clean"
    assert body["next"]


async def test_a_second_call_while_one_runs(api: Api):
    api.estate.add_vm("pgtest1")
    _, first, _ = await post(api, "pgtest1", Prefer="respond-async")
    status, body, _ = await post(api, "pgtest1")
    assert (status, body["code"], body["job_id"]) == (409, "cleanup_in_progress", first["job_id"])
    assert len(api.estate.queued) == 1


async def test_an_open_issue_blocks(api: Api):
    records = api.estate.add_vm("pgtest1")
    api.estate.vms[records.context.context_id] = replace(records, open_issue_ids=("issue-1",))
    status, body, _ = await post(api, "pgtest1")
    assert (status, body["code"], body["issue_ids"]) == (409, "needs_resolution", ["issue-1"])


async def test_the_database_is_away(api: Api):
    api.estate.add_vm("pgtest1")
    api.estate.database_down = True
    status, body, response = await post(api, "pgtest1")
    assert (status, body["code"]) == (503, "database_unavailable")
    assert "Retry-After" in response.headers
    assert body["error"].startswith("Failed to cleanup failed execution: ")


async def test_a_fault_of_ours_shows_no_traceback(api: Api):
    api.estate.add_vm("pgtest1")
    api.estate.broken = RuntimeError("secret_key=hunter2 in the traceback")
    status, body, _ = await post(api, "pgtest1", X_Correlation_ID="find-me")
    assert (status, body["code"], body["correlation_id"]) == (500, "internal_error", "find-me")
    assert "hunter2" not in str(body)
    assert "Traceback" not in str(body)
    assert (body["success"], body["vm_name"]) == (False, "pgtest1")


async def test_two_runs_are_told_apart_by_their_correlation_ids(api: Api):
    api.estate.add_vm("pgtest1")
    _, body, response = await post(api, "pgtest1", Prefer="wait=0", X_Correlation_ID="bad id with blanks")
    assert body["correlation_id"] == response.headers["X-Correlation-ID"] != "bad id with blanks"
    assert api.estate.queued[0].correlation_id == body["correlation_id"]
