"""The plans that were shown lately: whoever insists on one that no longer holds is told what changed since."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from oma.domain.plan import Plan

KEPT: Final = 500


class ShownPlans:
    """The newest plans by digest, in memory only: a restart forgets them, and then only the new plan can be told."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._plans: OrderedDict[str, Plan] = OrderedDict()

    def add(self, plan: Plan) -> None:
        self._plans[plan.digest] = plan
        self._plans.move_to_end(plan.digest)
        if len(self._plans) > self._kept:
            self._plans.popitem(last=False)

    def find(self, digest: str) -> Plan | None:
        return self._plans.get(digest)
