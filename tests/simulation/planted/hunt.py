"""Finds for planted bugs the first seed that catches each, and is clean without it: `python -m … NAME…`, or all."""

from __future__ import annotations

import os
import sys
from random import Random

from tests.simulation.planted.table import PLANTED, PlantedBug
from tests.simulation.simulate import HASHES, draw

MOST_SEEDS = 1500
MOST_VOLUMES = 3
"""Small worlds are quick, and hold every bug."""


def is_named(bug: PlantedBug, violations: list[str]) -> bool:
    return any(one.endswith(f"[{bug.invariant}]") for one in violations)


def is_clean(bug: PlantedBug, seed: int) -> bool:
    return not bug.live_through(seed, planted=False).violations


def is_fit(bug: PlantedBug, seed: int) -> bool:
    drawn = draw(Random(seed))
    names = {one.name for one in drawn.faults}
    small = sum(len(vm.disks) for vm in drawn.vms) <= MOST_VOLUMES
    return small and (not bug.struck_by or not names.isdisjoint(bug.struck_by))


def hunt(bug: PlantedBug, most: int = MOST_SEEDS) -> tuple[int | None, int]:
    """The seed, and how many were run."""
    run = 0
    for seed in range(most):
        if not is_fit(bug, seed):
            continue
        run += 1
        if is_named(bug, bug.live_through(seed).violations) and is_clean(bug, seed):
            return seed, run
    return None, run


def main(names: list[str]) -> None:
    for bug in PLANTED:
        if names and not any(name in bug.name for name in names):
            continue
        if is_named(bug, bug.live_through(bug.seed).violations) and is_clean(bug, bug.seed):
            sys.stdout.write(f"{bug.name}: {bug.seed} still does\n")
            continue
        seed, run = hunt(bug)
        sys.stdout.write(f"{bug.name}: {'none' if seed is None else seed} after {run} seeds\n")
        sys.stdout.flush()


if __name__ == "__main__":
    if os.environ.get(HASHES) != "0":
        own = [sys.executable, "-m", "tests.simulation.planted.hunt", *sys.argv[1:]]
        os.execve(sys.executable, own, {**os.environ, HASHES: "0"})
    main(sys.argv[1:])
