"""The history of one good run, which the tests damage."""

from __future__ import annotations

import pytest_asyncio

from oma.demo.invariants import History
from tests.fakes.invariants import build_history
from tests.fakes.stage import open_stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def good() -> History:
    async with open_stage(speed=400) as stage:
        vm = await stage.add()
        await stage.clean(vm)
        return await build_history(stage)
