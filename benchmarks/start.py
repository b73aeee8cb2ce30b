"""How soon `oma serve` is ready, and how much memory it holds when idle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import psutil

from benchmarks.table import Row, median
from oma.demo.ports import ANY_PORTS
from oma.demo.stack import StackOptions, running_stack

READY_LIMIT_S = 1.5
IDLE_LIMIT_BYTES = 100 << 20
IDLE_S = 3.0


async def measure(rounds: int) -> Sequence[Row]:
    """From the start of the process to `/readyz` answering 200, and the resident memory some seconds later."""
    ready: list[float] = []
    resident: list[int] = []
    async with running_stack(StackOptions(ports=ANY_PORTS)) as stack:
        for _ in range(rounds):
            await stack.oma.stop()
            began = time.monotonic()
            await stack.oma.start()
            await stack.ready()
            ready.append(time.monotonic() - began)
            await asyncio.sleep(IDLE_S)
            resident.append(psutil.Process(stack.oma.pid).memory_info().rss)
    rss = median(resident)
    return (
        Row("oma serve ready", median(ready), READY_LIMIT_S, 1.0, "bound = the limit"),
        Row(
            "oma serve idle",
            IDLE_S,
            note=f"{rss / (1 << 20):.0f} MB resident, limit 100: {'holds' if rss < IDLE_LIMIT_BYTES else 'FAILS'}",
        ),
    )
