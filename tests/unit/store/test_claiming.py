"""Claims of one turn of the loop are taken together, and each gets a job of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from oma.store.claiming import Claims


class Taken:
    """Stands for the transaction: there are so many jobs left; `asked` is what was asked for at once."""

    def __init__(self, left: int) -> None:
        self.jobs: list[Any] = [f"job-{number}" for number in range(left)]
        self.asked: list[tuple[str, float, int]] = []

    async def claim(self, owner: str, lease_s: float, most: int) -> Sequence[Any]:
        self.asked.append((owner, lease_s, most))
        await asyncio.sleep(0)
        found, self.jobs = self.jobs[:most], self.jobs[most:]
        return found


async def test_those_of_one_turn_share_a_claim_and_each_has_its_own_job() -> None:
    taken = Taken(5)
    claims: Any = Claims(taken.claim)

    found = await asyncio.gather(*(claims.claim("oma-1", 30.0) for _ in range(3)))

    assert found == ["job-0", "job-1", "job-2"]
    assert taken.asked == [("oma-1", 30.0, 3)]
    assert await claims.claim("oma-1", 30.0) == "job-3"


async def test_where_there_are_fewer_the_last_ones_get_none() -> None:
    claims: Any = Claims(Taken(2).claim)
    assert await asyncio.gather(*(claims.claim("oma-1", 30.0) for _ in range(4))) == ["job-0", "job-1", None, None]


async def test_every_owner_claims_for_itself() -> None:
    taken = Taken(3)
    claims: Any = Claims(taken.claim)

    await asyncio.gather(claims.claim("oma-1", 30.0), claims.claim("oma-2", 30.0), claims.claim("oma-1", 60.0))

    assert sorted(taken.asked) == [("oma-1", 30.0, 1), ("oma-1", 60.0, 1), ("oma-2", 30.0, 1)]


async def test_one_that_is_cancelled_takes_no_other_along() -> None:
    claims: Any = Claims(Taken(2).claim)
    first, second = (asyncio.create_task(claims.claim("oma-1", 30.0)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()

    assert await second == "job-1"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_what_is_raised_everybody_gets_and_the_next_claim_is_a_new_one() -> None:
    taken = Taken(1)

    async def claim(owner: str, lease_s: float, most: int) -> Sequence[Any]:
        if not taken.asked:
            taken.asked.append((owner, lease_s, most))
            raise OSError("away")
        return await taken.claim(owner, lease_s, most)

    claims: Any = Claims(claim)
    answers = await asyncio.gather(*(claims.claim("oma-1", 30.0) for _ in range(2)), return_exceptions=True)

    assert [type(one) for one in answers] == [OSError, OSError]
    assert await claims.claim("oma-1", 30.0) == "job-0"
