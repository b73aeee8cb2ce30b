"""Claims that are asked for at once are one transaction's work: after a restart a thousand jobs wait to be claimed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from oma.domain.jobs import ClaimedJob


class Claims:
    """Collects the claims of one turn of the loop; each gets a job of its own, or None where there are no more.

    `claim` takes up to so many jobs for an owner; what it raises, everybody gets who asked.
    """

    def __init__(self, claim: Callable[[str, float, int], Awaitable[Sequence[ClaimedJob]]]) -> None:
        self._claim = claim
        self._asked: dict[tuple[str, float], list[asyncio.Task[Sequence[ClaimedJob]]]] = {}
        """By owner and length of the lease: the task that claims, once for each who asked."""

    async def claim(self, owner: str, lease_s: float) -> ClaimedJob | None:
        asked = self._asked.setdefault((owner, lease_s), [])
        task = asked[0] if asked else asyncio.create_task(self._answer(owner, lease_s))
        asked.append(task)
        place = len(asked) - 1
        # One who is cancelled stops waiting; the others get theirs.
        claimed = await asyncio.shield(task)
        return claimed[place] if place < len(claimed) else None

    async def _answer(self, owner: str, lease_s: float) -> Sequence[ClaimedJob]:
        return await self._claim(owner, lease_s, len(self._asked.pop((owner, lease_s))))
