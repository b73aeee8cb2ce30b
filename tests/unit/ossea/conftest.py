from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ossea.client import CloudStack
from tests.unit.ossea.stub import Stub, serve_stub


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with serve_stub(Stub()) as served:
        yield served


@pytest.fixture
async def client(stub: Stub) -> AsyncIterator[CloudStack]:
    async with CloudStack(stub.endpoint(), timeout_s=5, poll_min_s=0.005, poll_max_s=0.05) as opened:
        yield opened
