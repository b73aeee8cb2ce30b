"""Durable steps per second through the door, beside the same without it: `python -m benchmarks.database`.

A step is two committed row updates, the intent and the outcome. Rounds of all cases are interleaved, so that
a disturbance of the machine meets all of them, and medians are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table as Printed
from sqlalchemy import Column, Integer, MetaData, String, Table, bindparam
from sqlalchemy.engine import Connection

from benchmarks.table import Row
from database.door import Door
from database.engine import build_engines, parse_url
from tests.mariadb import is_installed, running_mariadb

AT_ONCE: Final = 50
STEPS_ALONE: Final = 400
STEPS_EACH: Final = 40
ROUNDS: Final = 5

steps = Table(
    "oma_benchmark_steps",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("state", String(32)),
)
UPDATE: Final = steps.update().where(steps.c.id == bindparam("number")).values(state=bindparam("word"))

Write = Callable[[int, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Steps per second, medians."""

    name: str
    alone: float
    at_once: float


def prepare(connection: Connection) -> None:
    steps.drop(connection, checkfirst=True)
    steps.create(connection)
    connection.execute(steps.insert(), [{"id": number, "state": "-"} for number in range(AT_ONCE)])


async def through_the_door(case: Case) -> tuple[float, float]:
    door = await Door.open(case.url)
    await door.write(prepare)

    async def write(number: int, word: str) -> None:
        def change(connection: Connection) -> None:
            connection.execute(UPDATE, {"number": number, "word": word})

        await door.write(change)

    try:
        return await rate(write, 1, STEPS_ALONE), await rate(write, AT_ONCE, STEPS_EACH)
    finally:
        await door.close()


async def commit_per_write(case: Case) -> tuple[float, float]:
    """The same statements on the same kind of connection in one thread, each with a COMMIT of its own."""
    engines = build_engines(parse_url(case.url), 1)
    connection = await asyncio.to_thread(engines.writer.connect)
    lock = threading.Lock()

    def run(change: Callable[[Connection], object]) -> None:
        with lock, connection.begin():
            change(connection)

    async def write(number: int, word: str) -> None:
        await asyncio.to_thread(run, lambda c: c.execute(UPDATE, {"number": number, "word": word}))

    await asyncio.to_thread(run, prepare)
    try:
        return await rate(write, 1, STEPS_ALONE), await rate(write, AT_ONCE, STEPS_EACH)
    finally:
        await asyncio.to_thread(connection.close)
        engines.dispose()


async def rate(write: Write, clients: int, each: int) -> float:
    async def client(number: int) -> None:
        for turn in range(each):
            await write(number, f"STARTED {turn}")
            await write(number, f"EXECUTED {turn}")

    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return clients * each / (time.perf_counter() - began)


def fsyncs_per_second(directory: Path) -> float:
    """What the disk gives at most: a page appended and synchronised, again and again."""
    with (directory / "fsync").open("wb", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(300):
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
        return 300 / (time.perf_counter() - began)


@contextmanager
def databases(directory: Path) -> Iterator[Sequence[Case]]:
    with ExitStack() as stack:
        cases = [Case("SQLite", f"sqlite:///{directory}/benchmark.db")]
        if is_installed():
            server = stack.enter_context(running_mariadb(directory / "mariadb"))
            cases.append(Case("MariaDB", server.url(server.create_database())))
        yield cases


WAYS: Final[dict[str, Callable[[Case], Awaitable[tuple[float, float]]]]] = {
    "the door (group commit)": through_the_door,
    "commit per write, one thread": commit_per_write,
}


def measure(rounds: int, directory: Path) -> tuple[list[Figures], float]:
    """The figures of every database and way, and the disk's fsyncs per second."""
    found: dict[str, list[tuple[float, float]]] = {}
    disk: list[float] = []
    with databases(directory) as cases:
        for _ in range(rounds):
            disk.append(fsyncs_per_second(directory))
            for case in cases:
                for way, run in WAYS.items():
                    found.setdefault(f"{case.name}, {way}", []).append(asyncio.run(_awaited(run, case)))
    figures = [
        Figures(name, statistics.median(r[0] for r in rates), statistics.median(r[1] for r in rates))
        for name, rates in found.items()
    ]
    return figures, statistics.median(disk)


async def _awaited(run: Callable[[Case], Awaitable[tuple[float, float]]], case: Case) -> tuple[float, float]:
    return await run(case)


async def measure_rows(rounds: int) -> Sequence[Row]:
    """For the common table of `make bench`: the seconds that a thousand steps take."""
    with tempfile.TemporaryDirectory(prefix="oma-benchmark-") as directory:
        figures, _ = await asyncio.to_thread(measure, rounds, Path(directory))
    return [
        Row(f"1000 steps: {each.name}, {clients}", 1000 / rate, note=f"{rate:,.0f} durable steps/s")
        for each in figures
        for clients, rate in (("one at a time", each.alone), (f"{AT_ONCE} at once", each.at_once))
    ]


def print_figures(figures: Sequence[Figures], disk: float, rounds: int) -> None:
    table = Printed(title=f"Durable steps per second, medians of {rounds} rounds", title_justify="left")
    table.add_column("case")
    table.add_column("one at a time", justify="right")
    table.add_column(f"{AT_ONCE} at once", justify="right")
    for each in figures:
        table.add_row(each.name, f"{each.alone:,.0f}", f"{each.at_once:,.0f}")
    table.caption = f"the disk: {disk:,.0f} fdatasync per second ({1000 / disk:.2f} ms each); a step commits twice"
    Console(width=100).print(table)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="oma-benchmark-") as directory:
        figures, disk = measure(options.rounds, Path(directory))
    print_figures(figures, disk, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
