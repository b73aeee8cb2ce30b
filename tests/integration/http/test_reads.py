"""What people and programs may look at."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from oma.domain.errors import TITLES, Code
from oma.domain.issues import Issue, Severity, due_time
from oma.domain.jobs import LogLine
from oma.domain.states import IssueState, Phase
from oma.http.app import ROUTES, build_app
from oma.http.problems import STATUS
from oma.http.site import Site
from oma.ports import ContextFilter, JobFilter
from tests.integration.http.stub_clock import START
from tests.integration.http.stubs import Api, served


async def get(api: Api, path: str, status: int = 200, **headers: str) -> Any:
    async with api.client.get(api.url + path, headers=headers) as response:
        assert response.status == status, await response.text()
        return await response.json(content_type=None)


async def run_one(api: Api, name: str = "pgtest1") -> str:
    api.estate.add_vm(name)
    url = f"{api.url}/api/v1/failover/{name}/cleanup-failed"
    async with api.client.post(url, headers={"Prefer": "wait=0", "X-Correlation-ID": "c-1"}) as response:
        job_id: str = (await response.json())["job_id"]
    api.estate.end_job(job_id, result={"replica": "ready", "next": "Nothing."})
    api.estate.log[job_id] = [LogLine(1, job_id, Phase.ANALYZE, "INFO", "Looked.", {}, START)]
    return job_id


async def test_vms_and_why(api: Api):
    api.estate.add_vm("broken")
    api.estate.add_vm("fine", status="ready_for_failover")
    body = await get(api, "/api/v1/vm-contexts")
    assert [(vm["vm_name"], vm["cleanup_recommended"]) for vm in body["items"]] == [("broken", True), ("fine", False)]
    assert body["items"][0]["cleanup_why"]
    volume = body["items"][0]["volumes"][0]
    assert volume["attachment"]["operation_mode"] == "oma"
    assert volume["is_system_disk"] is True
    assert body["next_cursor"] is None


@pytest.mark.parametrize(("flag", "names"), [("true", ["broken"]), ("false", ["fine"])])
async def test_vms_that_need_a_cleanup(api: Api, flag: str, names: list[str]):
    api.estate.add_vm("broken")
    api.estate.add_vm("fine", status="ready_for_failover")
    body = await get(api, f"/api/v1/vm-contexts?needs_cleanup={flag}")
    assert [vm["vm_name"] for vm in body["items"]] == names


async def test_filters_reach_the_store(api: Api):
    await get(api, "/api/v1/vm-contexts?status=failed&q=%D1%81&limit=7&cursor=abc")
    await get(api, "/api/v1/jobs?vm=a%20b&status=parked&since=2026-01-31T03:00:00%2B01:00&correlation_id=c&limit=500")
    assert api.estate.asked == [
        (ContextFilter(status="failed", q="с"), 7, "abc"),
        (
            JobFilter(vm="a b", status="parked", since=datetime(2026, 1, 31, 2, 0, tzinfo=UTC), correlation_id="c"),
            500,
            None,
        ),
    ]


async def test_a_queued_job_is_found_by_the_joblogs_own_word_too(api: Api):
    await get(api, "/api/v1/jobs?status=pending")
    assert api.estate.asked == [(JobFilter(status="queued"), 50, None)]


async def test_one_vm(api: Api):
    api.estate.add_vm("db/prod #7")
    body = await get(api, "/api/v1/vm-contexts/db%2Fprod%20%237")
    assert body["vm_name"] == "db/prod #7"
    missing = await get(api, "/api/v1/vm-contexts/nobody", status=404)
    assert missing["code"] == "vm_not_found"
    assert "success" not in missing


async def test_a_job_with_all_its_parts(api: Api):
    job_id = await run_one(api)
    assert [job["id"] for job in (await get(api, "/api/v1/jobs"))["items"]] == [job_id]
    job = await get(api, f"/api/v1/jobs/{job_id}")
    assert (job["status"], job["operation"], job["correlation_id"]) == ("completed", "failed-execution-cleanup", "c-1")
    assert len(job["steps"]) == 5
    assert [step["seq"] for step in (await get(api, f"/api/v1/jobs/{job_id}/steps"))["items"]] == [1, 2, 3, 4, 5]
    assert (await get(api, f"/api/v1/jobs/{job_id}/actions"))["items"][0]["state"] == "EXECUTED"
    assert (await get(api, f"/api/v1/jobs/{job_id}/log"))["items"][0]["message"] == "Looked."


@pytest.mark.parametrize("part", ["", "/steps", "/actions", "/log", "/events"])
async def test_an_unknown_job(api: Api, part: str):
    assert (await get(api, f"/api/v1/jobs/nope{part}", status=404))["code"] == "job_not_found"


async def test_health_names_each_dependency(api: Api):
    body = await get(api, "/health")
    assert (body["status"], body["ready"]) == ("healthy", True)
    assert {one["name"] for one in body["dependencies"]} == {"database", "cloudstack", "volume_daemon"}
    api.estate.database_down = True
    api.unready.append("The schema is older than this version; run: oma db upgrade")
    body = await get(api, "/health", status=503)
    assert (body["status"], body["reason"]) == ("unhealthy", api.unready[0])


async def test_probes(api: Api):
    assert (await get(api, "/livez"))["status"] == "alive"
    assert (await get(api, "/readyz"))["status"] == "ready"
    api.unready.append("run: oma db upgrade")
    assert (await get(api, "/readyz", status=503))["reason"] == "run: oma db upgrade"
    api.unready.clear()
    api.deps.stopping.set()
    assert "stopping" in (await get(api, "/readyz", status=503))["reason"]
    assert (await get(api, "/livez"))["status"] == "alive"


async def test_requests_are_counted_by_route_not_by_name(api: Api):
    await get(api, "/api/v1/vm-contexts/a", status=404)
    await get(api, "/api/v1/vm-contexts/b", status=404)
    await get(api, "/nowhere", status=404)
    assert [(route, status) for route, status, _ in api.requests] == [
        ("/api/v1/vm-contexts/{vm_name}", 404),
        ("/api/v1/vm-contexts/{vm_name}", 404),
        ("unmatched", 404),
    ]


async def test_metrics_come_from_whoever_composes():
    exposition = (b"oma_up 1\n", "text/plain; version=1.0.0")
    async with served(render_metrics=lambda: exposition) as api, api.client.get(api.url + "/metrics") as response:
        assert await response.read() == b"oma_up 1\n"
        assert response.headers["Content-Type"].startswith("text/plain; version=1.0.0")


async def test_every_route_equals_its_openapi_entry(api: Api):
    document = await get(api, "/openapi.json")
    validate(document)
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    app = build_app(Site(api.deps))
    routed = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    assert described == routed


async def test_answers_are_what_the_document_says(api: Api):
    """Every JSON answer validates against the shape that its operation names."""
    document = await get(api, "/openapi.json")
    job_id = await run_one(api)
    api.estate.issues.append(
        Issue(
            "issue-1", "cause", job_id, None, "ctx-1", "pgtest1", "revert_unknown", "cleanup_failed", Severity.CRITICAL,
            IssueState.OPEN, "A revert", {}, {}, None, ("Look.",), START, due_time(Severity.CRITICAL, START),
        )
    )  # fmt: skip
    for path, template in (
        ("/api/v1/vm-contexts", "/api/v1/vm-contexts"),
        ("/api/v1/vm-contexts/pgtest1", "/api/v1/vm-contexts/{vm_name}"),
        ("/api/v1/vm-contexts/nobody", "/api/v1/vm-contexts/{vm_name}"),
        ("/api/v1/jobs", "/api/v1/jobs"),
        (f"/api/v1/jobs/{job_id}", "/api/v1/jobs/{job_id}"),
        (f"/api/v1/jobs/{job_id}/steps", "/api/v1/jobs/{job_id}/steps"),
        (f"/api/v1/jobs/{job_id}/actions", "/api/v1/jobs/{job_id}/actions"),
        (f"/api/v1/jobs/{job_id}/log", "/api/v1/jobs/{job_id}/log"),
        ("/health", "/health"),
        ("/livez", "/livez"),
        ("/readyz", "/readyz"),
    ):
        async with api.client.get(api.url + path) as response:
            check(document, template, "get", response.status, await response.json(content_type=None))
    template = "/api/v1/failover/{vm_name}/cleanup-failed"
    api.estate.add_vm("second")
    for name, body, prefer in (
        ("second", {"dry_run": True}, "wait=1"),
        ("second", {}, "wait=0"),
        ("second", {}, "wait=0"),
        ("nobody", {}, "wait=0"),
        ("second", {"force": True}, "wait=0"),
    ):
        url = f"{api.url}/api/v1/failover/{name}/cleanup-failed"
        async with api.client.post(url, json=body, headers={"Prefer": prefer}) as response:
            check(document, template, "post", response.status, await response.json(content_type=None))


def check(document: dict[str, Any], template: str, method: str, status: int, body: object) -> None:
    responses = document["paths"][template][method]["responses"]
    answer = responses.get(str(status), responses["default"])
    (content,) = answer["content"].values()
    schema = content["schema"]
    wrapped = {"components": document["components"], **schema}
    OAS31Validator(wrapped, format_checker=OAS31Validator.FORMAT_CHECKER).validate(body)


async def test_docs_show_every_route_and_load_nothing_foreign(api: Api):
    async with api.client.get(api.url + "/docs") as response:
        page = await response.text()
    for route in ROUTES:
        assert f"{route.method} {route.path}" in page
    assert "http://" not in page.replace(api.url, "")
    assert "<script" not in page
    async with api.client.get(api.url + "/docs/errors/state_unknown") as response:
        assert "could not be established" in await response.text()
    await get(api, "/docs/errors/nonsense", status=404)


def test_every_code_has_one_status_and_a_title():
    assert set(STATUS) == set(Code) == set(TITLES)


async def test_answers_can_not_be_framed_or_guessed_at(api: Api):
    async with api.client.get(api.url + "/docs") as response:
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
