"""The use cases over the real store in memory and the fakes at the ports."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.fakes.stage import Stage, open_stage


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with open_stage() as opened:
        yield opened
