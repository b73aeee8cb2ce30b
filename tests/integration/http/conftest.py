from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import structlog

from appliance.logs import configure_logs, flush_logs
from tests.integration.http.stubs import Api, served


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """As in the daemon: rendered by a thread, never in the event loop."""
    configure_logs("info", "json")
    yield
    flush_logs()
    structlog.reset_defaults()


@pytest_asyncio.fixture
async def api() -> AsyncIterator[Api]:
    async with served(heartbeat_s=30.0) as running:
        yield running
