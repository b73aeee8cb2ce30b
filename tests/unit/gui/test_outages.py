"""The banner of a system that is away: on every page where a run could be begun or is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from oma.domain.circuit import VOLUME_DAEMON, Outage
from oma.gui.pages import add_routes
from oma.http.app import build_app
from oma.http.site import Site
from tests.unit.gui import samples
from tests.unit.gui.stubs import StubDaemon
from tests.unit.gui.test_pauses import HOSTILE, as_text, read


@pytest.fixture
def daemon() -> StubDaemon:
    return StubDaemon()


@pytest.fixture
async def browser(daemon: StubDaemon) -> AsyncIterator[TestClient[Any, Any]]:
    app = await asyncio.to_thread(build_app, Site(deps=daemon.deps))
    add_routes(app, daemon.deps)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_every_page_says_who_is_away_and_why(daemon: StubDaemon, browser: TestClient[Any, Any]) -> None:
    records = samples.vm_records("pgtest1")
    daemon.estate.add(records)
    daemon.estate.put_job(samples.completed_job("job-1"))
    daemon.estate.put_job(samples.job("job-2"))
    pages = ["/", f"/vms/{records.context.context_id}/cleanup", "/jobs/job-2"]
    for path in pages:
        assert "has not answered" not in as_text(await read(browser, path))
    daemon.deps.brakes.set_outages([Outage(VOLUME_DAEMON, samples.NOW, HOSTILE)])
    for path in pages:
        page = await read(browser, path)
        assert "The Volume Daemon has not answered since" in as_text(page)
        assert HOSTILE in as_text(page)
        assert "<script>alert" not in page
        assert "go on by themselves when it answers" in as_text(page)
    assert "has not answered" not in as_text(await read(browser, "/jobs/job-1"))
