"""A throttled account: everybody comes through, in order, and few calls are wasted on finding out whether there is room."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import pytest

from ossea.errors import CloudStackError, ErrorKind
from ossea.throttle import Throttle, ThrottlePolicy

WINDOW_S = 0.1
ROOM = 5


class Account:
    """Takes `ROOM` calls in each window, and counts those that it throws back too, as CloudStack does."""

    def __init__(self) -> None:
        self.window = -1
        self.used = self.refused = self.taken = 0
        self.order: list[int] = []
        self.says: float | None = None

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def send(self, number: int) -> int:
        await asyncio.sleep(0)
        window = int(self.now() / WINDOW_S)
        if window != self.window:
            self.window, self.used = window, 0
        self.used += 1
        if self.used > ROOM:
            self.refused += 1
            left_s = (window + 1) * WINDOW_S - self.now() if self.says is None else self.says
            raise CloudStackError(ErrorKind.THROTTLED, "listVolumes", "too fast", retry_after_s=left_s)
        self.taken += 1
        self.order.append(number)
        return number


async def test_everybody_comes_through_and_few_calls_are_wasted():
    account = Account()
    throttle = Throttle(ThrottlePolicy(total_s=30), account.now)
    numbers = range(60)
    answers = await asyncio.gather(*(throttle.let_through(partial(account.send, one)) for one in numbers))
    assert answers == list(numbers)
    assert account.taken == 60
    assert account.refused < 60 + 60 / ROOM + 5  # all at once in the first moment, then about one in a window
    assert account.order == sorted(account.order)


async def test_another_error_is_told_as_it_is_and_holds_nobody():
    account = Account()
    throttle = Throttle(ThrottlePolicy(), account.now)

    async def fail() -> int:
        raise CloudStackError(ErrorKind.UNAUTHORIZED, "listVolumes", "no")

    for _ in range(2):
        with pytest.raises(CloudStackError, match="no"):
            await throttle.let_through(fail)
    assert await throttle.let_through(lambda: account.send(1)) == 1


async def test_a_longer_pause_than_the_policy_has_is_told_and_holds_nobody():
    account = Account()
    throttle = Throttle(ThrottlePolicy(total_s=0.2), account.now)

    async def refuse() -> int:
        raise CloudStackError(ErrorKind.THROTTLED, "listVolumes", "too fast", retry_after_s=60)

    with pytest.raises(CloudStackError) as raised:
        await throttle.let_through(refuse)
    assert raised.value.retry_after_s == 60
    assert await throttle.let_through(lambda: account.send(1)) == 1


async def test_the_total_bounds_the_attempts():
    tries = 0
    throttle = Throttle(ThrottlePolicy(total_s=0.2, pause_s=0.01), asyncio.get_running_loop().time)

    async def refuse() -> int:
        nonlocal tries
        tries += 1
        raise CloudStackError(ErrorKind.THROTTLED, "listVolumes", "too fast")

    with pytest.raises(CloudStackError):
        await throttle.let_through(refuse)
    assert tries > 2


async def test_while_it_is_crowded_a_call_that_hangs_holds_up_the_others_for_a_moment_only():
    """The answer to one is slow; whether there is room is known long before."""
    account, hangs = Account(), asyncio.Event()
    throttle = Throttle(ThrottlePolicy(total_s=30), account.now, turn_s=0.05)
    await asyncio.gather(*(throttle.let_through(partial(account.send, one)) for one in range(ROOM + 1)))

    async def hang() -> int:
        await hangs.wait()
        return -1

    slow = asyncio.create_task(throttle.let_through(hang))
    async with asyncio.timeout(5):
        assert await throttle.let_through(partial(account.send, 7)) == 7
    assert not slow.done()
    hangs.set()
    assert await slow == -1


async def test_a_call_that_is_thrown_back_late_comes_back_in_its_turn():
    account, hangs = Account(), asyncio.Event()
    throttle = Throttle(ThrottlePolicy(total_s=30), account.now, turn_s=0.02)
    await asyncio.gather(*(throttle.let_through(partial(account.send, one)) for one in range(ROOM + 1)))
    tries = 0

    async def late() -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            await hangs.wait()
            raise CloudStackError(ErrorKind.THROTTLED, "listVolumes", "too fast", retry_after_s=0.01)
        return 8

    waiting = asyncio.create_task(throttle.let_through(late))
    assert await throttle.let_through(partial(account.send, 7)) == 7
    hangs.set()
    assert await waiting == 8
    assert tries == 2


async def test_who_loses_patience_in_the_queue_takes_its_call_along():
    account = Account()
    throttle = Throttle(ThrottlePolicy(total_s=30), account.now, turn_s=30)
    await asyncio.gather(*(throttle.let_through(partial(account.send, one)) for one in range(ROOM + 1)))
    ended = asyncio.Event()

    async def hang() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return -1

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await throttle.let_through(hang)
    async with asyncio.timeout(5):
        await ended.wait()
        assert await throttle.let_through(partial(account.send, 7)) == 7


async def test_the_line_breaks_up_with_the_crowd():
    """Those who queued when the last 429 came do not go one by one for ever after it."""
    account = Account()
    throttle = Throttle(ThrottlePolicy(total_s=30), account.now, turn_s=30, crowded_s=0.05)
    under_way, together, refused = 0, asyncio.Event(), False

    async def send() -> None:
        nonlocal under_way, refused
        if not refused:
            refused = True
            raise CloudStackError(ErrorKind.THROTTLED, "listVolumes", "too fast", retry_after_s=0.01)
        under_way += 1
        if under_way == ROOM:
            together.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await together.wait()
        under_way -= 1

    await throttle.let_through(send)
    refused = False
    await asyncio.gather(*(throttle.let_through(send) for _ in range(ROOM + 2)))
    assert together.is_set()


async def test_whose_turn_does_not_come_is_told_the_last_429():
    account = Account()
    throttle = Throttle(ThrottlePolicy(total_s=30, line_s=0.05), account.now, turn_s=30)
    await asyncio.gather(*(throttle.let_through(partial(account.send, one)) for one in range(ROOM + 1)))
    hanging = asyncio.create_task(throttle.let_through(lambda: asyncio.Event().wait()))
    await asyncio.sleep(0)
    with pytest.raises(CloudStackError, match="too fast") as raised:
        await throttle.let_through(partial(account.send, 7))
    assert raised.value.kind is ErrorKind.THROTTLED
    hanging.cancel()
