"""Lives through many seeds of the simulation: `python -m benchmarks.simulation [SEEDS] [FIRST_SEED]`.

Prints volumes, faults and recoveries per seed, how often each fault struck, and whatever invariant was broken with the
command that shows it again. The last line: seeds run, seeds per second, violations. It fails as well where the run
proves less than it should: a seed had too few faults, a class of them never struck, or too few VMs were cleaned up.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.simulation.faults import FAULTS
from tests.simulation.meddling import MEDDLINGS
from tests.simulation.simulate import HASHES, LEAST_FAULTS, Report, run_seed

CHUNK = 25
SHOWN_VIOLATIONS = 50
ENOUGH_SEEDS = 1000
"""From so many on every class of faults, and everything that people do, has to have struck."""
LEAST_COMPLETED = 0.7
"""Share of the VMs. In the others something is gone for good, or a person leaves the issue to the next morning."""


@dataclass
class Totals:
    """What all seeds came to. `cpu_s`: over all cores."""

    seeds: int = 0
    volumes: int = 0
    vms: int = 0
    recoveries: int = 0
    few: int = 0
    """Seeds in which fewer faults struck than a seed is to have."""
    words: int = 0
    cpu_s: float = 0.0
    struck: Counter[str] = field(default_factory=Counter)
    meddled: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    bad: list[Report] = field(default_factory=list)

    def add(self, report: Report) -> None:
        self.seeds += 1
        self.volumes += report.volumes
        self.vms += report.vms
        self.recoveries += report.recoveries
        self.few += sum(report.struck.values()) < LEAST_FAULTS
        self.words += len(report.said)
        self.struck.update(report.struck)
        self.meddled.update(report.meddled)
        self.kept.update(report.kept)
        self.ended.update(report.ended)
        if report.violations:
            self.bad.append(report)

    def list_gaps(self) -> list[str]:
        """What these seeds did not show, although so many of them should have."""
        gaps = [f"{self.few} seeds had fewer than {LEAST_FAULTS} faults"] if self.few else []
        if self.ended["completed"] < LEAST_COMPLETED * self.vms:
            gaps.append(f"only {self.ended['completed']} of {self.vms} VMs were cleaned up")
        if self.seeds >= ENOUGH_SEEDS:
            gaps += [f"{one.name} never struck" for one in FAULTS if not self.struck[one.name]]
            gaps += [f"nobody came to {one.name}" for one in MEDDLINGS if not self.meddled[one.name]]
        return gaps


def main() -> int:
    if os.environ.get(HASHES) != "0":
        arguments = [sys.executable, "-m", "benchmarks.simulation", *sys.argv[1:]]
        os.execve(sys.executable, arguments, {**os.environ, HASHES: "0"})
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    began = time.monotonic()
    totals = Totals()
    for reports, cpu_s in _run(range(first, first + count)):
        totals.cpu_s += cpu_s
        for report in reports:
            totals.add(report)
            print(report.describe())
    _print_totals(totals, time.monotonic() - began)
    return 1 if totals.bad or totals.list_gaps() else 0


def run_chunk(seeds: range) -> tuple[list[Report], float]:
    """In a process of its own: rubbish is collected between the chunks only."""
    gc.disable()
    began = time.process_time()
    reports = [run_seed(seed) for seed in seeds]
    gc.collect()
    return reports, time.process_time() - began


def _run(seeds: range) -> Iterator[tuple[list[Report], float]]:
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    workers = min(len(os.sched_getaffinity(0)), len(chunks))
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(run_chunk, chunks)


def _print_totals(totals: Totals, wall_s: float) -> None:
    print("\nfaults that struck:")
    for name in sorted({*(one.name for one in FAULTS), *totals.struck}):
        print(f"  {totals.struck[name]:7d}  {name}")
    print(
        f"volumes: {totals.volumes}; recoveries: {totals.recoveries}; words of people: {totals.words}; "
        f"people: {_listed(totals.meddled)}; ends of {totals.vms} VMs: {_listed(totals.ended)}"
    )
    print(f"not to be cleaned up by anybody: {_listed(totals.kept)}")
    for gap in totals.list_gaps():
        print(f"GAP: {gap}")
    for report in totals.bad[:SHOWN_VIOLATIONS]:
        print(f"seed {report.seed}: {report.violations[0]}")
        print(f"  see it again: .venv/bin/python -m tests.simulation {report.seed}")
    violations = sum(len(report.violations) for report in totals.bad)
    print(
        f"{totals.seeds} seeds, {totals.seeds / wall_s:.1f} seeds/s ({totals.seeds / totals.cpu_s:.1f} per core), "
        f"{violations} violations"
    )


def _listed(what: Counter[str]) -> str:
    return ", ".join(f"{times} {name}" for name, times in what.most_common()) or "none"


if __name__ == "__main__":
    sys.exit(main())
