"""The invariants of section 9 of the safety rules: one checker for every kind of test, and for the demo.

`judge` takes a `History`, everything that reached CloudStack and how things stood then, the journal, and the world at
rest, and names what must never have been. Whoever has such a history may ask: the simulation and the crash tests build
it from the model, acceptance and demo from the simulator's admin port.
"""

from oma.demo.invariants.facts import (
    Call,
    Ended,
    History,
    Rest,
    Violation,
    VmFacts,
    VolumeAtRest,
    VolumeFacts,
)
from oma.demo.invariants.journal import TABLES, Journal, build_journal, read_journal
from oma.demo.invariants.table import INVARIANTS, Invariant, judge, judge_rest

__all__ = [
    "INVARIANTS",
    "TABLES",
    "Call",
    "Ended",
    "History",
    "Invariant",
    "Journal",
    "Rest",
    "Violation",
    "VmFacts",
    "VolumeAtRest",
    "VolumeFacts",
    "build_journal",
    "judge",
    "judge_rest",
    "read_journal",
]
