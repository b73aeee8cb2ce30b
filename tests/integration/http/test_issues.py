"""Issues over HTTP, with the real store and the fakes at the ports behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from appliance.web import serve_site
from oma.domain.states import JobState
from oma.http.app import build_app
from oma.http.site import Site
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm, Disk
from tests.fakes.stage import FIGURES, Stage, open_stage


class Served:
    def __init__(self, stage: Stage, url: str, client: aiohttp.ClientSession) -> None:
        self.stage, self._url, self._client = stage, url, client

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        async with self._client.get(f"{self._url}/api/v1{path}") as response:
            return response.status, await response.json()

    async def resolve(self, issue_id: str, **body: Any) -> tuple[int, dict[str, Any]]:
        async with self._client.post(f"{self._url}/api/v1/issues/{issue_id}/resolve", json=body) as response:
            return response.status, await response.json()

    async def park(self) -> tuple[BrokenVm, str, str]:
        stage = self.stage
        stage.world.add_fault(FaultKind.JOB_FAIL, "revertSnapshot", errorcode=530)
        vm = await stage.add(BrokenVm(disks=[Disk()], test_vm_state="Stopped"))
        job = await stage.clean(vm)
        assert job.state is JobState.PARKED
        (issue,) = await stage.open_issues(job.id)
        return vm, job.id, issue["id"]


@pytest_asyncio.fixture
async def api() -> AsyncIterator[Served]:
    figures = replace(FIGURES, revert_window_s=300.0, revert_attempts=1)
    async with open_stage(figures=figures) as stage:
        runner, url = await serve_site(build_app(Site(stage.deps)), "127.0.0.1", 0, shutdown_timeout_s=1)
        async with aiohttp.ClientSession() as client:
            yield Served(stage, url, client)
        await runner.cleanup()


async def test_an_issue_is_listed_shown_and_settled(api: Served) -> None:
    vm, job_id, issue_id = await api.park()
    status, page = await api.get(f"/issues?vm={vm.name}&severity=critical&limit=1")
    assert (status, [one["id"] for one in page["items"]]) == (200, [issue_id])
    assert (await api.get("/issues/next"))[1]["id"] == issue_id
    status, answer = await api.resolve(issue_id, resolution="EXECUTED", notes="reverted by hand")
    assert status == 200
    assert (answer["issue"]["state"], answer["issue"]["resolution"]) == ("resolved", "APPLIED")
    assert (answer["resumed"], answer["job_status"], answer["waits"]) == (True, "queued", True)
    assert answer["waits_until"] in answer["next"]
    await api.stage.work()
    assert (await api.stage.check(job_id)).state is JobState.COMPLETED
    assert (await api.get("/issues/next"))[0] == 404
    assert (await api.get(f"/issues/{issue_id}"))[1]["resolved_by"] == "api"
    assert len((await api.get("/issues?state=all"))[1]["items"]) == 1


async def test_a_claim_that_the_world_contradicts_is_409_with_the_evidence(api: Served) -> None:
    vm, _job_id, issue_id = await api.park()
    api.stage.world.change_volume(vm.volume_id(0), vm_id=api.stage.world.oma_vm_id)
    status, problem = await api.resolve(issue_id, resolution="ROLLED_BACK", notes="once more")
    assert (status, problem["code"], problem["retry"]) == (409, "resolution_contradicted", "after_change")
    assert problem["evidence"]["cloudstack"]["vm_id"] == api.stage.world.oma_vm_id
    assert "RESYNC" in problem["next"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"notes": "x"}, "resolution"),
        ({"resolution": "MAYBE", "notes": "x"}, "resolution"),
        ({"resolution": "APPLIED"}, "notes"),
        ({"resolution": "APPLIED", "notes": "  "}, "notes"),
        ({"resolution": "APPLIED", "notes": "x", "why": "y"}, "why"),
        ({"resolution": "APPLIED", "notes": "x", "reason": "y"}, "reason"),
        ({"resolution": "APPLIED", "notes": "x", "insist": "yes"}, "insist"),
        ({"resolution": "APPLIED", "notes": "x", "insist": True, "reason": "I know"}, "insist"),
    ],
)
async def test_what_does_not_fit_is_422_and_nothing_is_settled(api: Served, body: dict[str, Any], field: str) -> None:
    _vm, _job_id, issue_id = await api.park()
    status, problem = await api.resolve(issue_id, **body)
    assert (status, problem["code"], problem["field"]) == (422, "invalid_request", field)
    assert (await api.get("/issues/next"))[1]["id"] == issue_id


async def test_an_unknown_issue_is_404(api: Served) -> None:
    assert (await api.get("/issues/nobody"))[1]["code"] == "issue_not_found"
    status, problem = await api.resolve("nobody", resolution="APPLIED", notes="x")
    assert (status, problem["code"]) == (404, "issue_not_found")
