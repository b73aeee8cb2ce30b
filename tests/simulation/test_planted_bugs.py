"""The simulation can fail: each planted bug is caught in its seed, by the invariant that it breaks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from oma.demo.invariants import INVARIANTS
from tests.simulation.planted.table import PLANTED, PlantedBug
from tests.simulation.simulate import HASHES, OWN

ROOT = Path(__file__).resolve().parents[2]
LEAST = 16
PARTS = 6
"""Processes that they are shared out to, one after the other: none of them is at it for long."""


@cache
def answers(part: int) -> dict[str, dict[str, Any]]:
    """Of a process of its own, in which sets of texts have the order that the seeds were noted with."""
    names = [bug.name for bug in PLANTED[part::PARTS]]
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.planted", "--json", *names],
        cwd=ROOT,
        env={**os.environ, HASHES: "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


def answer_about(bug: PlantedBug) -> dict[str, Any]:
    return answers(PLANTED.index(bug) % PARTS)[bug.name]


@pytest.mark.parametrize("bug", PLANTED, ids=[bug.name for bug in PLANTED])
def test_a_planted_bug_is_caught(bug: PlantedBug) -> None:
    said = answer_about(bug)["with"]
    assert any(one.endswith(f"[{bug.invariant}]") for one in said), said


@pytest.mark.parametrize("bug", PLANTED, ids=[bug.name for bug in PLANTED])
def test_its_seed_is_clean_without_it(bug: PlantedBug) -> None:
    assert answer_about(bug)["without"] == []


def test_there_are_enough_of_them_and_each_says_what_it_is() -> None:
    assert len(PLANTED) >= LEAST
    assert len({bug.name for bug in PLANTED}) == len(PLANTED)
    assert [bug.name for bug in PLANTED if not bug.sentence.endswith(".")] == []
    assert {bug.invariant for bug in PLANTED} <= {invariant.name for invariant in INVARIANTS} | set(OWN)
