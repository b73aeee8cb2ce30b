"""The bound is arithmetic over the simulator's rules; these are the figures that the product is measured by."""

from __future__ import annotations

import pytest

from benchmarks.bound import Durations, batch_s, one_vm_s, serial_s


def test_four_volumes_on_one_test_vm_are_bound_by_the_queues():
    assert one_vm_s(4, Durations(), queue_per_vm=True) == 31


def test_without_the_queue_only_the_phases_count():
    assert one_vm_s(4, Durations(), queue_per_vm=False) == 13


def test_todays_serial_algorithm_is_slower_even_without_its_polls():
    assert serial_s(4, Durations()) == 52


def test_a_batch_is_bound_by_the_omas_attach_queue():
    tenth = Durations().scaled(0.1)
    assert batch_s(100, 4, tenth) == pytest.approx(120 + 1.9)
