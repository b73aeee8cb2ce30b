"""Every crash point, by an exception that takes the daemon with it, over MariaDB."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.crash.databases import MariaSchema
from tests.crash.matrix import Census, choose_points, run_cases

pytestmark = [pytest.mark.slow, pytest.mark.mariadb, pytest.mark.rule("9-invariants")]
SHARES = 8


@pytest.mark.parametrize("share", range(SHARES))
async def test_whatever_the_daemon_dies_at_the_next_one_comes_to_rest(
    share: int, census: list[Census], mariadb_schemas: Sequence[MariaSchema]
) -> None:
    assert await run_cases(choose_points(census)[share::SHARES], mariadb_schemas) == []
