from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from appliance.logs import configure_logs, flush_logs


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """As in the daemon: rendered by a thread, never in the event loop."""
    configure_logs("info", "json")
    yield
    flush_logs()
    structlog.reset_defaults()
