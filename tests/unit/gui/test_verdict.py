"""The verdict on the pages, and each failure told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from oma.domain.actions import ActionKind
from oma.domain.states import ActionState, JobState, Phase, StepStatus
from oma.domain.verdict import SOURCE_OFF
from oma.gui.pages import add_routes
from oma.http.app import build_app
from oma.http.site import Site
from tests.unit.gui import samples
from tests.unit.gui.stubs import StubDaemon
from tests.unit.gui.test_pages import HTML, read


@pytest.fixture
def daemon() -> StubDaemon:
    return StubDaemon()


@pytest.fixture
async def browser(daemon: StubDaemon) -> AsyncIterator[TestClient[Any, Any]]:
    app = await asyncio.to_thread(build_app, Site(deps=daemon.deps))
    add_routes(app, daemon.deps)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_estate_shows_the_verdict_of_the_last_run_unless_a_failover_has_begun_since(daemon, browser):
    def with_summary(name: str, first: int, at: str):
        records = samples.vm_records(name, first=first)
        summary: dict[str, object] = {
            "operation": "failed-execution-cleanup",
            "status": "parked",
            "ended_at": at,
            "replica": "ready",
            "next": f"{SOURCE_OFF} Settle the issue: oma jobs show job-1",
        }
        log = replace(records.joblog[0], step_names=("source-vm-power-off",))
        return replace(records, joblog=(log,), context=replace(records.context, last_operation_summary=summary))

    daemon.estate.add(
        with_summary("told", 1, samples.ago(hours=1).isoformat()),
        with_summary("overtaken", 10, samples.ago(hours=9).isoformat()),
    )
    page = await browser.get("/", headers=HTML)
    words = await read(page)
    assert words.count("replica ready") == 1
    assert words.count("Next: Settle the issue: oma jobs show job-1") == 1
    assert words.count(SOURCE_OFF) == 2


async def test_a_failure_stands_once_on_the_page_and_its_steps_are_numbered_once(daemon, browser):
    sentence = "The revert of vol-1 failed. Its own job ended failed. CloudStack said: no such file"
    job = samples.parked_job()
    failed = replace(job, error={**(job.error or {}), "detail": sentence})
    daemon.estate.put_job(failed)
    daemon.estate.issues.append(replace(samples.issue(), title=sentence))
    daemon.estate.steps["job-1"] = [
        *samples.steps(Phase.SNAPSHOTS, StepStatus.FAILED)[:-1],
        replace(samples.steps(Phase.SNAPSHOTS, StepStatus.FAILED)[-1], error_message=sentence),
    ]
    failure = samples.action(
        1, ActionKind.REVERT_SNAPSHOT, Phase.SNAPSHOTS, ActionState.EXECUTION_FAILED, sentence=sentence
    )
    daemon.estate.actions["job-1"] = [failure]
    page = await browser.get("/jobs/job-1", headers=HTML)
    words = await read(page)
    assert words.count(sentence) == 1
    assert "replica unknown The revert of vol-1 failed." in words
    assert "The revert of vol-1 failed. Its own" in words
    assert "1. Look" not in words
    assert '<code class="command">cs queryAsyncJobResult jobid=abc</code>' in await page.text()
    assert "Next: The content of vol-1 is not proven" in words


async def test_a_parked_run_leaves_its_verdict_on_the_estate_and_a_running_one_none(daemon, browser):
    records = samples.vm_records("pgtest1")
    told: dict[str, object] = {
        "operation": "failed-execution-cleanup",
        "ended_at": samples.NOW.isoformat(),
        "replica": "unknown",
    }
    daemon.estate.add(replace(records, context=replace(records.context, last_operation_summary=told)))
    for state, shown in ((JobState.PARKED, 1), (JobState.RUNNING, 0)):
        daemon.estate.put_job(samples.job(state=state))
        assert (await read(await browser.get("/", headers=HTML))).count("replica unknown") == shown
