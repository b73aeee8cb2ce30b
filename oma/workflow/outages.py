"""Whether another system is away altogether, or only left one call unanswered: what a run asks before it fails."""

from __future__ import annotations

from typing import Protocol

from oma.domain.circuit import Outage


class Outages(Protocol):
    """Told by the circuits of the targets (`workflow.circuits`)."""

    async def find_outage(self, target: str) -> Outage | None:
        """Asks the target by itself; None where it answers. `target` is the name that an `Upstream` carries."""


class NoOutages:
    """Every silence is that of one call: for whoever has no circuits."""

    async def find_outage(self, target: str) -> Outage | None:  # noqa: ARG002 - the protocol's signature
        return None
