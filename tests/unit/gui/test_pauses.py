"""The banner: what is paused, by whom, why, and how it goes on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from oma.domain.controls import ControlChange, PauseSubject, Scope
from oma.gui.pages import add_routes
from oma.http.app import build_app
from oma.http.site import Site
from tests.unit.gui import samples
from tests.unit.gui.stubs import StubDaemon

HOSTILE = "<script>alert(1)</script>{{7*7}}"


@pytest.fixture
def daemon() -> StubDaemon:
    return StubDaemon()


@pytest.fixture
async def browser(daemon: StubDaemon) -> AsyncIterator[TestClient[Any, Any]]:
    app = await asyncio.to_thread(build_app, Site(deps=daemon.deps))
    add_routes(app, daemon.deps)
    async with TestClient(TestServer(app)) as client:
        yield client


async def pause(daemon: StubDaemon, what: PauseSubject, reason: str = "the array reboots") -> None:
    await daemon.controls.pause(ControlChange(what, "operator", reason, samples.NOW))


async def read(browser: TestClient[Any, Any], path: str) -> str:
    response = await browser.get(path, headers={"Accept": "text/html"})
    assert response.status == 200
    return await response.text()


def as_text(page: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page)).split())


async def test_the_estate_says_what_is_paused(daemon: StubDaemon, browser: TestClient[Any, Any]) -> None:
    assert "paused" not in as_text(await read(browser, "/"))
    await pause(daemon, PauseSubject(Scope.ALL), HOSTILE)
    page = await read(browser, "/")
    assert f"Everything is paused by operator: {HOSTILE}" in as_text(page)
    assert "<script>alert" not in page
    assert "Let go on with: oma resume" in as_text(page)
    live = page.index('id="live"')
    assert page.index("Everything is paused") > live, "the banner comes and goes without a reload"
    assert "pause_lifted" in page[live : live + 2000]


async def test_a_vms_pages_show_only_what_holds_it(daemon: StubDaemon, browser: TestClient[Any, Any]) -> None:
    records = samples.vm_records("pgtest1")
    daemon.estate.add(records)
    context_id = records.context.context_id
    path = f"/vms/{context_id}/cleanup"
    await pause(daemon, PauseSubject(Scope.VM, "another", "another"))
    assert "is paused by" not in as_text(await read(browser, path))
    await pause(daemon, PauseSubject(Scope.VM, context_id, "pgtest1"))
    text = as_text(await read(browser, path))
    assert "The VM pgtest1 is paused by operator: the array reboots" in text
    assert f"oma resume --vm pgtest1 --context-id {context_id}" in text


async def test_the_page_of_a_run_says_why_it_does_not_go_on(daemon: StubDaemon, browser: TestClient[Any, Any]) -> None:
    daemon.estate.put_job(samples.completed_job("job-1"))
    running = samples.job("job-2")
    daemon.estate.put_job(running)
    await pause(daemon, PauseSubject(Scope.ALL))
    assert "Everything is paused" in as_text(await read(browser, "/jobs/job-2"))
    assert "Everything is paused" not in as_text(await read(browser, "/jobs/job-1"))
