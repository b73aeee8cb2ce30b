"""Two hundred seeds: whatever strikes, at whatever moment, no invariant is broken and everything comes to rest.

The benchmark runs ten thousand: `make bench-simulation`. A seed that fails is shown again by
`.venv/bin/python -m tests.simulation SEED`.
"""

from __future__ import annotations

import gc
from random import Random

import pytest

from tests.simulation.faults import FAULTS
from tests.simulation.simulate import LEAST_FAULTS, draw, run_seed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # Processes that were killed leave behind what they had begun; it is cleared away with their world.
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CHUNK = 10
QUARTER = 5
"""Chunks; it is bound by what the suite may take."""
FIRST = 1


def _live_through(chunk: int) -> None:
    found = []
    gc.disable()
    try:
        for seed in range(FIRST + chunk * CHUNK, FIRST + (chunk + 1) * CHUNK):
            report = run_seed(seed)
            if report.violations or report.struck.total() < LEAST_FAULTS:
                found.append(report.describe())
    finally:
        gc.enable()
        gc.collect()
    assert not found, "\n".join(found)


# Classes are what the workers share out among themselves.


class TestFirstQuarter:
    @pytest.mark.parametrize("chunk", range(QUARTER))
    def test_no_invariant_is_broken(self, chunk: int) -> None:
        _live_through(chunk)


class TestSecondQuarter:
    @pytest.mark.parametrize("chunk", range(QUARTER, 2 * QUARTER))
    def test_no_invariant_is_broken(self, chunk: int) -> None:
        _live_through(chunk)


class TestThirdQuarter:
    @pytest.mark.parametrize("chunk", range(2 * QUARTER, 3 * QUARTER))
    def test_no_invariant_is_broken(self, chunk: int) -> None:
        _live_through(chunk)


class TestLastQuarter:
    @pytest.mark.parametrize("chunk", range(3 * QUARTER, 4 * QUARTER))
    def test_no_invariant_is_broken(self, chunk: int) -> None:
        _live_through(chunk)


class TestWhatASeedIs:
    def test_a_seed_draws_one_to_eight_volumes_and_two_faults_at_least(self) -> None:
        counts = set()
        for seed in range(300):
            drawn = draw(Random(seed))
            counts.add(sum(len(vm.disks) for vm in drawn.vms))
            assert len(drawn.faults) >= LEAST_FAULTS
        assert counts == set(range(1, 9))

    def test_every_class_of_faults_is_drawn(self) -> None:
        drawn = {one.name for seed in range(1000) for one in draw(Random(seed)).faults}
        assert drawn == {one.name for one in FAULTS if one.weight}

    def test_the_same_seed_is_the_same_story(self) -> None:
        stories = [run_seed(4, keep_trace=True).trace for _ in range(2)]
        assert stories[0] == stories[1]
        assert stories[0]
