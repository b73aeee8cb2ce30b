"""The ways in which a failover leaves a VM behind, and how each of them has to end."""

from __future__ import annotations

from typing import Final

from oma.demo.scenarios.asked import ASKED
from oma.demo.scenarios.base import Scenario
from oma.demo.scenarios.cleaned import CLEANED
from oma.demo.scenarios.doubtful import RECORDS, SNAPSHOTS
from oma.demo.scenarios.held import HELD
from oma.demo.scenarios.identity import IDENTITY
from oma.demo.scenarios.insisted import FORCED, MARKED
from oma.demo.scenarios.midway import MIDWAY
from oma.demo.scenarios.parked import PARKED
from oma.demo.scenarios.refused import REFUSED
from oma.demo.scenarios.remnants import REMNANTS
from oma.demo.scenarios.words import WORDED

GROUPS: Final[tuple[tuple[str, tuple[Scenario, ...]], ...]] = (
    ("Put right", (*CLEANED, *REMNANTS)),
    ("Put right once a person has acted", (*WORDED, *FORCED)),
    ("Held on the OMA", HELD),
    ("Stopped half-way", (*PARKED, *MIDWAY)),
    ("Doubtful snapshots and replications", SNAPSHOTS),
    ("Doubtful records, and VMs in use", (*REFUSED, *MARKED, *RECORDS, *IDENTITY)),
    ("Asked wrongly", ASKED),
)
SCENARIOS: Final[tuple[Scenario, ...]] = tuple(scenario for _, group in GROUPS for scenario in group)

__all__ = ["GROUPS", "SCENARIOS", "Scenario"]
