"""The benchmark fails as well where its seeds show less than they should, whatever the invariants say."""

from __future__ import annotations

from collections import Counter

from benchmarks.simulation import ENOUGH_SEEDS, Totals
from tests.simulation.faults import FAULTS
from tests.simulation.meddling import MEDDLINGS
from tests.simulation.simulate import Report

STRUCK = Counter({one.name: 1 for one in FAULTS})
MEDDLED = Counter({one.name: 1 for one in MEDDLINGS})


def _gaps(seeds: int = 1, **fields: object) -> list[str]:
    totals = Totals()
    report = Report(1, vms=1, ended=["completed"], struck=STRUCK, meddled=MEDDLED)
    for name, value in fields.items():
        setattr(report, name, value)
    for _ in range(seeds):
        totals.add(report)
    return totals.list_gaps()


def test_a_run_that_shows_everything_has_no_gap() -> None:
    assert _gaps(ENOUGH_SEEDS) == []


def test_a_product_that_refuses_everything_is_one() -> None:
    assert _gaps(ended=["no run"]) == ["only 0 of 1 VMs were cleaned up"]


def test_a_seed_with_one_fault_is_one() -> None:
    assert _gaps(struck=Counter({"delay": 1})) == ["1 seeds had fewer than 2 faults"]


def test_a_class_of_faults_that_never_struck_is_one_where_there_were_seeds_enough() -> None:
    struck = Counter({name: 1 for name in STRUCK if name != "delay"})
    assert _gaps(ENOUGH_SEEDS, struck=struck) == ["delay never struck"]
    assert _gaps(struck=struck) == []


def test_something_that_people_never_did_is_one_as_well() -> None:
    meddled = Counter({name: 1 for name in MEDDLED if name != "drain"})
    assert _gaps(ENOUGH_SEEDS, meddled=meddled) == ["nobody came to drain"]
