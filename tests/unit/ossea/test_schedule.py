"""How soon an ended job is noticed and how often it is looked at, on a clock of our own."""

from __future__ import annotations

import pytest

from ossea.schedule import Durations, delay_before_look, floor_after_round, pays_to_sweep


def follow(length_s: float, fastest_s: float | None) -> tuple[float, int]:
    """Seconds from the job's end to the look that notices it, and the number of looks."""
    now, looks = 0.05, 1
    while now < length_s:
        now += delay_before_look(now, fastest_s, 0.05, 2.0)
        looks += 1
    return now - length_s, looks


@pytest.mark.parametrize("length_s", [0.3, 1.0, 3.0, 3.01, 3.37])
def test_a_short_job_is_noticed_within_a_tenth_of_a_second_without_hammering(length_s):
    late_s, looks = follow(length_s, None)
    assert late_s <= 0.1
    assert looks <= 60


@pytest.mark.parametrize("length_s", [2.9, 3.0, 3.1, 4.0])
def test_a_known_length_needs_fewer_looks_for_the_same(length_s):
    late_s, looks = follow(length_s, fastest_s=2.9)
    assert late_s <= 0.09
    assert looks <= follow(length_s, None)[1] * 2 / 3


def test_a_job_much_faster_than_ever_seen_is_still_noticed_soon():
    assert follow(1.0, fastest_s=10.0)[0] <= 0.25


def test_a_job_of_hours_costs_one_look_per_two_seconds():
    late_s, looks = follow(7200.0, None)
    assert late_s <= 2.0
    assert looks <= 7200 / 2 + 300


def test_the_fastest_of_the_last_observations_counts():
    durations = Durations()
    assert durations.fastest("attachVolume") is None
    for seconds in (0.1, *[3.0] * 15, 4.0):
        durations.learn("attachVolume", seconds)
    assert durations.fastest("attachVolume") == 3.0
    assert durations.fastest("detachVolume") is None
    assert durations.fastest(None) is None


def test_a_slow_or_long_round_stretches_the_pause():
    assert floor_after_round(1, 0.001, 0.05, 2.0) == pytest.approx(0.05, abs=0.001)
    assert floor_after_round(400, 0.02, 0.05, 2.0) == pytest.approx(0.25)
    assert floor_after_round(1, 1.5, 0.05, 2.0) == 1.5


def test_a_round_that_hung_does_not_put_off_the_next():
    assert floor_after_round(1, 10.0, 0.05, 2.0) == 2.0
    assert floor_after_round(100_000, 1.0, 0.05, 2.0) == 2.0


def test_a_sweep_pays_for_many_jobs_unless_the_list_is_much_longer():
    assert not pays_to_sweep(4, 0)
    assert pays_to_sweep(5, 0)
    assert pays_to_sweep(20, 500)
    assert not pays_to_sweep(20, 5000)
