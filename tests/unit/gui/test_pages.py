from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from oma.domain.errors import Code, OmaError
from oma.domain.states import JobState, Phase, StepStatus
from oma.gui.pages import add_routes
from oma.http.app import build_app
from oma.http.site import Site
from tests.unit.gui import samples
from tests.unit.gui.stubs import StubDaemon

HTML = {"Accept": "text/html"}
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"


@pytest.fixture
def daemon() -> StubDaemon:
    return StubDaemon()


@pytest.fixture
async def browser(daemon: StubDaemon) -> AsyncIterator[TestClient[Any, Any]]:
    app = await asyncio.to_thread(build_app, Site(deps=daemon.deps))
    add_routes(app, daemon.deps)
    async with TestClient(TestServer(app)) as client:
        yield client


async def read(response: ClientResponse) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", await response.text())).split())


def first(pattern: str, page: str) -> str:
    found = re.search(pattern, page)
    assert found, page
    return unescape(found.group(1))


def digest_in(page: str) -> str:
    return first(r'name="expect_plan" value="([0-9a-f]{64})"', page)


async def test_estate_offers_the_button_only_where_it_is_recommended(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"), samples.vm_records("healthy", broken=False, first=10))
    page = await (await browser.get("/", headers=HTML)).text()
    assert page.count("Cleanup Failed Job") == 1
    assert 'href="/vms/ctx-pgtest1/cleanup"' in page
    assert "ready for failover" in page
    assert "its JobLog row says failed" in page


async def test_estate_shows_the_run_and_the_issues_of_a_vm(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"), samples.vm_records("stuck", first=5, open_issue_ids=("issue-1",)))
    daemon.estate.put_job(samples.job(phase=Phase.SNAPSHOTS))
    response = await browser.get("/", headers=HTML)
    words = await read(response)
    assert "running Clean-up : phase 3 of 5: cleanup-snapshots" in words
    assert "1 open issue" in words
    assert "An open issue has to be resolved first." in words
    assert "Cleanup Failed Job" not in words
    assert 'http-equiv="refresh"' in await response.text()


async def test_estate_without_a_run_does_not_reload_itself(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"))
    assert 'http-equiv="refresh"' not in await (await browser.get("/", headers=HTML)).text()


async def test_estate_filters_by_need_status_and_text(daemon, browser):
    daemon.estate.add(
        samples.vm_records("pgtest1", status="cleanup_required"),
        samples.vm_records("pgtest2", first=5),
        samples.vm_records("healthy", broken=False, first=10),
    )
    for query, expected in (
        ("needs=yes", {"pgtest1", "pgtest2"}),
        ("needs=no", {"healthy"}),
        ("status=cleanup_required", {"pgtest1"}),
        ("q=PGTEST2", {"pgtest2"}),
        ("q=nobody", set()),
        ("needs=nonsense", {"pgtest1", "pgtest2", "healthy"}),
    ):
        page = await (await browser.get(f"/?{query}", headers=HTML)).text()
        assert set(re.findall(r"<h2><bdi>(.*?)</bdi>", page)) == expected, query
        assert ("No VM fits this filter" in page) is (not expected)


async def test_estate_pages_keep_the_filter(daemon, browser):
    for number in range(60):
        daemon.estate.add(samples.vm_records(f"vm-{number:02d}", first=1 + number * 2))
    page = await (await browser.get("/?q=vm-", headers=HTML)).text()
    url = first(r'href="([^"]+)" rel="next"', page)
    assert "q=vm-" in url
    second = await (await browser.get(url, headers=HTML)).text()
    assert "<bdi>vm-59</bdi>" in second
    assert "<bdi>vm-00</bdi>" not in second
    assert "First page" in second


async def test_empty_database_says_so(browser):
    assert "holds no VM yet" in await read(await browser.get("/", headers=HTML))


async def test_hostile_names_stay_text_everywhere(daemon, browser):
    daemon.estate.add(samples.vm_records(HOSTILE, context_id="c/1 ?#<", vcenter=HOSTILE))
    daemon.estate.put_job(
        samples.job("job-9", HOSTILE, JobState.COMPLETED, error={"detail": HOSTILE, "guidance": HOSTILE})
    )
    estate = await (await browser.get("/", headers=HTML)).text()
    link = first(r'href="(/vms/[^"]+)"', estate)
    confirm = await browser.get(link, headers=HTML)
    assert confirm.status == 200
    job = await (await browser.get("/jobs/job-9", headers=HTML)).text()
    search = await (await browser.get("/", params={"q": HOSTILE}, headers=HTML)).text()
    for page in (estate, await confirm.text(), job, search):
        assert "<script>alert" not in page
        assert "{{7*7}}" in unescape(page)


async def test_confirmation_shows_the_plan_in_order(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"))
    page = await browser.get("/vms/ctx-pgtest1/cleanup", headers=HTML)
    words = await read(page)
    places = [words.index(phase.value) for phase in Phase]
    assert places == sorted(places)
    assert "Nothing has been changed yet." in words
    assert "vol-1" in words
    assert "Risks" in words
    assert "Run exactly this plan" in words
    assert daemon.estate.queued == []


async def test_confirming_runs_exactly_the_shown_plan(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"))
    digest = digest_in(await (await browser.get("/vms/ctx-pgtest1/cleanup", headers=HTML)).text())
    answer = await browser.post(
        "/vms/ctx-pgtest1/cleanup", data={"expect_plan": digest}, headers=HTML, allow_redirects=False
    )
    assert answer.status == 303
    [queued] = daemon.estate.queued
    assert answer.headers["Location"] == f"/jobs/{queued.job_id}"
    assert queued.plan.digest == digest
    assert queued.requested_by == "page"
    assert queued.correlation_id == answer.headers["X-Correlation-ID"]


async def test_a_second_click_leads_to_the_same_run(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"))
    form = {"expect_plan": digest_in(await (await browser.get("/vms/ctx-pgtest1/cleanup", headers=HTML)).text())}
    answers = [
        await browser.post("/vms/ctx-pgtest1/cleanup", data=form, headers=HTML, allow_redirects=False) for _ in (1, 2)
    ]
    assert [one.status for one in answers] == [303, 303]
    assert answers[0].headers["Location"] == answers[1].headers["Location"]
    assert len(daemon.estate.queued) == 1


async def test_another_plan_than_the_running_one_is_refused_with_a_way_to_it(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"))
    daemon.estate.put_job(samples.job())
    answer = await browser.post("/vms/ctx-pgtest1/cleanup", data={"expect_plan": "0" * 64}, headers=HTML)
    assert answer.status == 409
    assert 'href="/jobs/job-1"' in await answer.text()


async def test_changed_world_shows_the_new_plan_and_starts_nothing(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"))
    digest = digest_in(await (await browser.get("/vms/ctx-pgtest1/cleanup", headers=HTML)).text())
    daemon.estate.add(samples.vm_records("pgtest1", status="cleanup_required"))
    page = await browser.post("/vms/ctx-pgtest1/cleanup", data={"expect_plan": digest}, headers=HTML)
    assert page.status == 200
    words = await read(page)
    assert "Nothing was started. The plan is no longer the one that you confirmed." in words
    assert digest_in(await page.text()) != digest
    assert daemon.estate.queued == []


async def test_form_without_a_plan_is_invalid(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"))
    answer = await browser.post("/vms/ctx-pgtest1/cleanup", data={}, headers=HTML)
    assert answer.status == 422
    assert "open the confirmation page again" in await answer.text()
    assert daemon.estate.queued == []


async def test_every_refusal_is_told_with_its_next_step(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"))
    daemon.world.missing = {samples.volume_id(1)}
    daemon.world.foreign = {samples.volume_id(2)}
    page = await browser.get("/vms/ctx-pgtest1/cleanup", headers=HTML)
    words = await read(page)
    assert "for these reasons" in words
    assert "Alarm: CloudStack no longer lists the volume vol-1" in words
    assert "vol-2 hangs on payroll" in words
    assert words.count("Next:") == 2
    assert "replica unknown" in words
    assert "Run exactly this plan" not in words
    assert "Check again" in words


async def test_refusal_at_the_last_moment_is_a_page_with_all_reasons(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"))
    digest = digest_in(await (await browser.get("/vms/ctx-pgtest1/cleanup", headers=HTML)).text())
    daemon.world.missing = {samples.volume_id(1)}
    daemon.world.foreign = {samples.volume_id(2)}
    answer = await browser.post("/vms/ctx-pgtest1/cleanup", data={"expect_plan": digest}, headers=HTML)
    assert answer.status == 409
    words = await read(answer)
    assert "no longer lists the volume vol-1" in words
    assert "vol-2 hangs on payroll" in words
    assert "Look at the plan again" in words
    assert daemon.estate.queued == []


async def test_open_issue_blocks_the_confirmation(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1", active_job_id="job-1", open_issue_ids=("issue-1",)))
    page = await browser.get("/vms/ctx-pgtest1/cleanup", headers=HTML)
    assert "has an open issue that a person has to settle" in await read(page)
    assert 'href="/jobs/job-1"' in await page.text()


async def test_running_job_shows_phases_actions_and_log(daemon, browser):
    daemon.estate.put_job(samples.job(phase=Phase.SNAPSHOTS))
    daemon.estate.steps["job-1"] = list(samples.steps(Phase.SNAPSHOTS))
    daemon.estate.actions["job-1"] = list(samples.actions_of_run())
    daemon.estate.log["job-1"] = [samples.log_line(n, f"line {n}") for n in range(1, 61)]
    page = await browser.get("/jobs/job-1", headers=HTML)
    words = await read(page)
    assert "executed Reverted vol-1 to its snapshot." in words
    assert "started Reverting vol-2 to its snapshot." in words
    assert "line 60" in words
    assert "line 20 " not in words
    assert "oma jobs log job-1" in words
    text = await page.text()
    assert 'data-ended="false"' in text
    assert '<noscript><meta http-equiv="refresh" content="3"></noscript>' in text
    assert re.search(r'<li aria-current="step">\s*<h3>Revert and delete snapshots', text)


async def test_completed_job_says_whether_the_replica_is_good_and_what_is_next(daemon, browser):
    daemon.estate.put_job(samples.completed_job())
    daemon.estate.steps["job-1"] = list(samples.steps(Phase.RESET, StepStatus.COMPLETED))
    page = await browser.get("/jobs/job-1", headers=HTML)
    words = await read(page)
    assert "replica ready Failed execution cleanup completed for pgtest1" in words
    assert "Next: Run a replication before the next failover." in words
    assert "took 31 s" in words
    assert 'data-ended="true"' in await page.text()
    assert 'http-equiv="refresh"' not in await page.text()


async def test_parked_job_shows_the_upstreams_words_and_the_guidance_once(daemon, browser):
    daemon.estate.put_job(samples.parked_job())
    daemon.estate.issues.append(samples.issue())
    words = await read(await browser.get("/jobs/job-1", headers=HTML))
    assert "CloudStack 530: Unable to revert volume" in words
    assert "The revert of vol-1 is unproven" in words
    assert words.count("cs queryAsyncJobResult jobid=abc") == 1
    assert "parked: needs a person" in words


async def test_source_powered_off_is_said_first(daemon, browser):
    daemon.estate.put_job(replace(samples.job(), plan=samples.plan(powered_off=True)))
    words = await read(await browser.get("/jobs/job-1", headers=HTML))
    assert words.index("start it in vCenter") < words.index("running for")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/jobs/nowhere", "No job has the id 'nowhere'"),
        ("/vms/nowhere/cleanup", "No VM has the context 'nowhere'"),
        ("/nowhere", "There is no page at this address."),
        ("/static/nowhere.css", "There is no page at this address."),
    ],
)
async def test_not_found_is_a_page_with_a_way_back_and_an_id(browser, path, sentence):
    response = await browser.get(path, headers=HTML)
    assert response.status == 404
    assert response.content_type == "text/html"
    words = await read(response)
    assert sentence in words
    assert response.headers["X-Correlation-ID"] in words
    assert "Back to the estate" in words or "Look at the plan again" in words


async def test_api_errors_and_programs_keep_their_documents(browser):
    for path, headers in (("/api/v1/jobs/nowhere", HTML), ("/jobs/nowhere", {"Accept": "*/*"})):
        response = await browser.get(path, headers=headers)
        assert response.content_type == "application/problem+json"
        assert (await response.json())["code"] == "job_not_found"


async def test_database_away_is_a_page_too(daemon, browser):
    daemon.estate.fault = OmaError(Code.DATABASE_UNAVAILABLE, "The database does not answer.", next="oma doctor")
    response = await browser.get("/", headers=HTML)
    assert response.status == 503
    assert response.headers["Retry-After"]
    words = await read(response)
    assert "The database does not answer." in words
    assert "oma doctor" in words


async def test_bad_cursor_is_told_and_nothing_breaks(browser):
    response = await browser.get("/?cursor=%00nonsense", headers=HTML)
    assert response.status == 422
    assert "cursor is not one of ours." in await response.text()


async def test_other_sites_cannot_start_a_cleanup(daemon, browser):
    daemon.estate.add(samples.vm_records("pgtest1"))
    digest = digest_in(await (await browser.get("/vms/ctx-pgtest1/cleanup", headers=HTML)).text())
    for foreign in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await browser.post(
            "/vms/ctx-pgtest1/cleanup", data={"expect_plan": digest}, headers={**HTML, **foreign}
        )
        assert answer.status == 403
        assert "Cross-site requests are refused" in await answer.text()
    assert daemon.estate.queued == []


@pytest.mark.parametrize("path", ["/", "/vms/ctx-pgtest1/cleanup", "/jobs/job-1", "/nowhere"])
async def test_pages_forbid_foreign_and_inline_code(daemon, browser, path):
    daemon.estate.add(samples.vm_records("pgtest1"))
    daemon.estate.put_job(samples.completed_job())
    response = await browser.get(path, headers=HTML)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Cache-Control"] == "no-store"
    text = await response.text()
    assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=", text)


async def test_static_files_are_served_under_addresses_that_change_with_them(browser):
    text = await (await browser.get("/", headers=HTML)).text()
    urls = set(re.findall(r'"(/static/[^"]+)"', text))
    assert len(urls) == 3
    for url in urls:
        response = await browser.get(url)
        assert response.status == 200
        assert "immutable" in response.headers["Cache-Control"]
        assert await response.read()
