"""What every answer of the clean-up endpoint says: whether the replica is good, what comes next, how long it takes."""

from __future__ import annotations

from typing import Any

import aiohttp

from appliance.web import serve_site
from oma.domain.states import Phase
from oma.http.app import build_app
from oma.http.site import Site
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import open_stage
from tests.integration.http.stubs import Api
from tests.integration.http.test_cleanup import post


async def test_every_answer_says_whether_the_replica_is_good_and_what_is_next(api: Api):
    """A healthy VM, one that is at work, a dry run, a name that nobody has, a bad body, a foreign site, a fault."""
    api.estate.add_vm("pgtest1")
    api.estate.add_vm("well", status="ready_for_failover")
    asked: tuple[tuple[str, dict[str, Any], dict[str, str]], ...] = (
        ("well", {}, {}),
        ("pgtest1", {"json": {"dry_run": True}}, {}),
        ("pgtest1", {"json": {"nonsense": 1}}, {}),
        ("pgtest1", {"data": b"{"}, {}),
        ("pgtest1", {}, {"Origin": "http://evil.example"}),
        ("nobody", {}, {}),
        ("pgtest1", {}, {"Prefer": "respond-async"}),
        ("pgtest1", {}, {}),
    )
    seen = []
    for name, sent, headers in asked:
        address = f"{api.url}/api/v1/failover/{name}/cleanup-failed"
        async with api.client.post(address, headers=headers, **sent) as response:
            body = await response.json(content_type=None)
        assert body["replica"] in ("ready", "resync_required", "unknown"), body
        assert body["next"], body
        seen.append((response.status, body.get("code"), body["replica"]))
    assert seen == [
        (409, "nothing_to_clean", "ready"),
        (200, None, "ready"),
        (422, "invalid_request", "unknown"),
        (422, "invalid_request", "unknown"),
        (403, "cross_site", "unknown"),
        (404, "vm_not_found", "unknown"),
        (202, None, "ready"),
        (409, "cleanup_in_progress", "unknown"),
    ]
    api.estate.broken = RuntimeError("a fault of ours")
    _, body, _ = await post(api, "pgtest1")
    assert (body["code"], body["replica"]) == ("internal_error", "unknown")
    assert body["next"]


async def test_a_status_that_keeps_changing_is_told_with_its_own_next_step(api: Api):
    api.estate.add_vm("pgtest1")
    api.estate.conflicts = 3
    status, body, _ = await post(api, "pgtest1")
    assert (status, body["code"], body["replica"]) == (409, "operation_in_progress", "unknown")
    assert "current_status" in body["next"]


async def test_a_dry_run_estimates_the_time_and_gives_the_command_that_runs_exactly_it(api: Api):
    api.estate.add_vm("a VM's name")
    _, body, _ = await post(api, "a VM's name", json={"dry_run": True})
    estimate = body["plan"]["estimate"]
    assert 0 < estimate["low"] <= estimate["seconds"] <= estimate["high"]
    assert estimate["words"].startswith("about ")
    assert estimate["basis"]
    assert f"--expect-plan {body['plan_digest']}" in body["next"]
    assert r"oma cleanup 'a VM'\''s name' --context-id ctx-1" in body["next"]
    assert body["phases"] == [phase.value for phase in Phase]
    assert "partial" not in body


async def test_a_dry_run_of_some_phases_says_what_they_would_not_do(api: Api):
    api.estate.add_vm("pgtest1")
    _, body, _ = await post(api, "pgtest1", json={"dry_run": True, "phases": ["detach-attached-volumes"]})
    assert body["partial"] is True
    assert body["phases"] == ["analyze-volume-state", "detach-attached-volumes"]
    assert body["message"] == (
        "Dry run for pgtest1: 0 of 1 actions planned in detach-attached-volumes; the VM would not be cleaned up; "
        "nothing was changed"
    )
    assert "--phases analyze-volume-state,detach-attached-volumes" in body["next"]


async def test_a_dry_run_of_phases_that_could_not_begin_is_refused_like_the_run_itself():
    async with open_stage() as stage, aiohttp.ClientSession() as client:
        vm = await stage.add(BrokenVm(test_vm_state="Stopped"))
        runner, url = await serve_site(build_app(Site(stage.deps)), "127.0.0.1", 0, shutdown_timeout_s=1)
        try:
            body = {"dry_run": True, "phases": ["reattach-all-volumes"]}
            address = f"{url}/api/v1/failover/{vm.name}/cleanup-failed"
            async with client.post(address, json=body) as response:
                problem = await response.json(content_type=None)
        finally:
            await runner.cleanup()
        assert (response.status, problem["code"], problem["field"]) == (422, "invalid_request", "phases")
