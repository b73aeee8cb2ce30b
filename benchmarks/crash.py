"""The whole crash matrix: `python -m benchmarks.crash [--way raise …] [--database sqlite …] [--everything]`.

Every occasion of every crash point, by every way to die, over both databases: run, die, restart, come to rest, judge
the invariants; where a death may be raised, whoever goes on after it dies as well. `--everything`: each story at each
of its occasions, each time that it comes to it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog
from rich.console import Console
from rich.table import Table

from tests.crash.databases import Database, kept_engines, made_mariadb_schemas, make_sqlite_files
from tests.crash.dying import Way
from tests.crash.killing import open_killing
from tests.crash.matrix import (
    Case,
    Census,
    choose_everything,
    choose_later,
    choose_occasions,
    choose_sendings,
    run_cases,
    take_census,
    take_later_census,
)
from tests.crash.ports import bare
from tests.crash.stories import STORIES
from tests.mariadb import is_installed, running_mariadb

AT_ONCE: Final = 8
SQLITE, MARIADB = "SQLite", "MariaDB"
IN_PROCESS: Final = frozenset({Way.RAISE, Way.FAULT})


@dataclass(frozen=True, slots=True)
class Part:
    """One way over one database."""

    database: str
    way: Way
    cases: Sequence[Case]
    faults: Sequence[str]
    wall_s: float

    @property
    def points(self) -> int:
        return len({bare(case.then or case.occasion) for case in self.cases})

    @property
    def occasions(self) -> int:
        return len({case.then or case.occasion for case in self.cases})


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--way", choices=[way.value for way in Way], action="append", help="these ways only")
    parser.add_argument("--database", choices=[SQLITE, MARIADB], action="append", help="this database only")
    parser.add_argument("--everything", action="store_true", help="each story, each occasion, each time")
    given = parser.parse_args(arguments)
    ways = [Way(one) for one in given.way or [way.value for way in Way]]
    wanted = given.database or [SQLITE, *([MARIADB] if is_installed() else [])]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    parts: list[Part] = []
    with tempfile.TemporaryDirectory(prefix="oma-crash-") as name, kept_engines():
        directory = Path(name)
        files = make_sqlite_files(directory, AT_ONCE)
        taken = asyncio.run(take_census(STORIES.values(), files))
        later = asyncio.run(_choose_later(taken, files)) if Way.RAISE in ways else []
        for database in wanted:
            with _opened(database, files, directory) as databases:
                for way in ways:
                    cases = choose_cases(taken, way, everything=given.everything)
                    if way is Way.RAISE:
                        cases += later
                    parts.append(asyncio.run(_run_part(database, way, cases, databases, directory)))
                    _tell(parts[-1])
    _print(parts)
    return 1 if any(part.faults for part in parts) else 0


@contextmanager
def _opened(database: str, files: Sequence[Database], directory: Path) -> Iterator[Sequence[Database]]:
    if database == SQLITE:
        yield files
        return
    with running_mariadb(directory / "mariadb") as server, made_mariadb_schemas(server, AT_ONCE) as schemas:
        yield schemas


def choose_cases(taken: Sequence[Census], way: Way, *, everything: bool) -> list[Case]:
    """A process that stands still is of interest between check and send only."""
    if way is Way.STOP:
        cases = choose_sendings(taken)
    else:
        cases = choose_everything(taken) if everything else choose_occasions(taken)
    return [replace(case, way=way) for case in cases]


async def _choose_later(taken: Sequence[Census], files: Sequence[Database]) -> list[Case]:
    return choose_later(taken, await take_later_census(choose_occasions(taken), files))


async def _run_part(
    database: str, way: Way, cases: Sequence[Case], databases: Sequence[Database], directory: Path
) -> Part:
    began = time.monotonic()
    if way in IN_PROCESS:
        faults = await run_cases(cases, databases)
    else:
        async with open_killing(databases, directory) as killing:
            faults = await run_cases(cases, databases, killing.run)
    return Part(database, way, cases, faults, time.monotonic() - began)


def _tell(part: Part) -> None:
    for fault in part.faults:
        print(f"{part.database}: {fault}", file=sys.stderr, flush=True)


def _print(parts: Sequence[Part]) -> None:
    table = Table(title="The crash matrix", title_justify="left")
    for column in ("database", "way"):
        table.add_column(column)
    for column in ("points", "occasions", "cases", "violations", "s"):
        table.add_column(column, justify="right")
    for part in parts:
        figures = (part.points, part.occasions, len(part.cases), len(part.faults), f"{part.wall_s:.0f}")
        table.add_row(part.database, part.way.value, *(str(one) for one in figures))
    Console(width=120).print(table)
    points = max(part.points for part in parts)
    ways, databases = len({part.way for part in parts}), len({part.database for part in parts})
    cases, faults = sum(len(part.cases) for part in parts), sum(len(part.faults) for part in parts)
    print(f"{points} points x {ways} ways x {databases} databases: {cases} deaths, {faults} violations")


if __name__ == "__main__":
    sys.exit(main())
