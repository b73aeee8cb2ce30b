"""The ways in which a failover leaves a VM behind, and how each of them has to end."""

from __future__ import annotations

from typing import Final

from oma.demo.scenarios.base import Scenario
from oma.demo.scenarios.cleaned import CLEANED
from oma.demo.scenarios.parked import PARKED
from oma.demo.scenarios.refused import REFUSED

SCENARIOS: Final[tuple[Scenario, ...]] = (*CLEANED, *PARKED, *REFUSED)

__all__ = ["SCENARIOS", "Scenario"]
