"""Deaths that the first runs of the matrix did not survive, each with what was mended."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.crash.databases import SqliteFile
from tests.crash.dying import Way
from tests.crash.matrix import Case, run_cases
from tests.crash.stories import STORIES

FOUND = [
    pytest.param(
        "somebody else takes the VM's status",
        "oma.journalstore.ActionEnded[reset_records EXECUTION_FAILED].after",
        Way.RAISE,
        id="the next process tried the failed reset again, met its own end of it, and parked without naming it",
    ),
    pytest.param(
        "a clean-up of a running test VM",
        "oma.cloud.submit_revert.after",
        Way.FAULT,
        id="a run that met a fault of the daemon was parked, and no issue named the revert that was on its way",
    ),
    pytest.param(
        "a clean-up of a running test VM",
        "oma.cloud.submit_set_marks.before",
        Way.FAULT,
        id="nobody could settle an issue about a marker: how it stood was not looked at",
    ),
]


@pytest.mark.parametrize(("story", "occasion", "way"), FOUND)
async def test_a_death_that_was_once_fatal_is_survived(
    story: str, occasion: str, way: Way, sqlite_files: Sequence[SqliteFile]
) -> None:
    assert await run_cases([Case(STORIES[story], occasion, way)], sqlite_files[:1]) == []
