"""Every occasion of every crash point, by an exception that takes the daemon with it, over SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.crash.databases import SqliteFile
from tests.crash.dying import Way
from tests.crash.matrix import (
    Census,
    choose_later,
    choose_occasions,
    choose_sendings,
    run_cases,
    take_later_census,
    thin_commits,
)

pytestmark = [pytest.mark.slow, pytest.mark.rule("9-invariants")]
SHARES, FEW = 16, 3


@pytest.mark.parametrize("share", range(SHARES))
async def test_whatever_the_daemon_dies_at_the_next_one_comes_to_rest(
    share: int, census: list[Census], sqlite_files: Sequence[SqliteFile]
) -> None:
    assert await run_cases(thin_commits(choose_occasions(census))[share::SHARES], sqlite_files) == []


@pytest.mark.parametrize("share", range(FEW))
async def test_whoever_goes_on_after_a_death_may_die_over_it_as_well(
    share: int, census: list[Census], sqlite_files: Sequence[SqliteFile]
) -> None:
    """What only recovery comes to: what an earlier life began is ended, adopted, sent once more, or its id burned."""
    later = await take_later_census(choose_sendings(census)[share::FEW], sqlite_files)
    cases = choose_later(census, later)
    assert any("[earlier" in (case.then or "") for case in cases)
    assert await run_cases(cases, sqlite_files) == []


@pytest.mark.parametrize("share", range(FEW))
async def test_after_a_fault_of_its_own_a_run_parks_at_worst_and_a_person_lets_it_go_on(
    share: int, census: list[Census], sqlite_files: Sequence[SqliteFile]
) -> None:
    cases = [replace(case, way=Way.FAULT) for case in choose_sendings(census)[share::FEW]]
    assert await run_cases(cases, sqlite_files) == []
