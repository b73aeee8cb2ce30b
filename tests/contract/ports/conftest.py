"""Every test of this folder runs twice: on the fakes, and on the adapters over real processes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.ports.sides import Processes, Side, fake_side, real_side


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    both = Processes(tmp_path_factory.mktemp("ports"))
    try:
        both.start()
        yield both
    finally:
        both.stop()


@pytest.fixture
async def fake() -> AsyncIterator[Side]:
    async with fake_side() as opened:
        yield opened


@pytest.fixture
async def real(processes: Processes) -> AsyncIterator[Side]:
    async with real_side(processes) as opened:
        yield opened


@pytest.fixture(params=["fake", "real"])
def side(request: pytest.FixtureRequest) -> Side:
    opened: Side = request.getfixturevalue(request.param)
    return opened
