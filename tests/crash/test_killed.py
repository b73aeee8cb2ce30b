"""Every crash point of a daemon that is a process of its own: left by `os._exit`, and killed from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.databases import MariaSchema, SqliteFile
from tests.crash.dying import Way
from tests.crash.killing import open_killing
from tests.crash.matrix import Census, choose_kinds, choose_points, choose_sendings, run_cases

pytestmark = [pytest.mark.slow, pytest.mark.rule("9-invariants")]
WAYS = (Way.EXIT, Way.KILL)
SHARES, FEW = 6, 3


@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("way", WAYS)
async def test_a_process_that_is_gone_at_any_point_is_followed_by_one_that_comes_to_rest(
    way: Way, share: int, census: list[Census], sqlite_files: Sequence[SqliteFile], tmp_path: Path
) -> None:
    cases = [replace(case, way=way) for case in choose_points(census)[share::SHARES]]
    async with open_killing(sqlite_files, tmp_path) as killing:
        assert await run_cases(cases, sqlite_files, killing.run) == []


@pytest.mark.rule("6-own-ids")
@pytest.mark.parametrize("share", range(FEW))
async def test_a_process_that_is_passed_by_between_check_and_send_neither_writes_nor_acts(
    share: int, census: list[Census], sqlite_files: Sequence[SqliteFile], tmp_path: Path
) -> None:
    """It stands still with an intent that is journaled, somebody else goes on to the end, and it wakes up."""
    cases = [replace(case, way=Way.STOP) for case in choose_sendings(census)[share::FEW]]
    async with open_killing(sqlite_files, tmp_path) as killing:
        assert await run_cases(cases, sqlite_files, killing.run) == []


@pytest.mark.mariadb
async def test_it_is_so_over_mariadb_for_each_kind_of_action(
    census: list[Census], mariadb_schemas: Sequence[MariaSchema], tmp_path: Path
) -> None:
    cases = [replace(case, way=way) for way in WAYS for case in choose_kinds(census)]
    async with open_killing(mariadb_schemas, tmp_path) as killing:
        assert await run_cases(cases, mariadb_schemas, killing.run) == []
