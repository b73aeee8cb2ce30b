"""Work in threads whose effects have to be taken away again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
WAIT_S: Final = 10.0
PAUSE_S: Final = 0.01


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `asyncio.to_thread`, but a cancellation waits for the thread: it would go on making what is taken away."""
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def wait_until(happened: Callable[[], bool], otherwise: str) -> None:
    """Blocks. Raises `RuntimeError` with the sentence where it has not happened in good time."""
    deadline = time.monotonic() + WAIT_S
    while not happened():
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise)
        time.sleep(PAUSE_S)
