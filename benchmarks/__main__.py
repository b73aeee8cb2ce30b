"""`make bench`: every benchmark in turn, one table each; exits 1 when a figure does not hold."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from benchmarks import analysis, batch, critical_path, database, holders, restart, start
from benchmarks.table import Row, print_table

ROUNDS: Final = 3

SUITES: Final[dict[str, tuple[str, Callable[[], Awaitable[Sequence[Row]]]]]] = {
    "start": ("Start and idle", lambda: start.measure(ROUNDS)),
    "database": ("Durable steps through the door to the database", lambda: database.measure_rows(ROUNDS)),
    "holders": ("The scan for holders", lambda: holders.measure(ROUNDS)),
    "analysis": ("The analysis", lambda: analysis.measure(ROUNDS)),
    "critical-path": ("Critical path of one VM", lambda: critical_path.measure(ROUNDS)),
    "batch": ("Many VMs at once", batch.measure),
    "restart": ("Restart with jobs in flight", restart.measure),
}


def main(names: Sequence[str]) -> int:
    held = True
    for name in names or tuple(SUITES):
        title, measure = SUITES[name]
        rows = asyncio.run(_awaited(measure))
        print_table(title, rows)
        held = held and all(row.holds for row in rows)
    return 0 if held else 1


async def _awaited(measure: Callable[[], Awaitable[Sequence[Row]]]) -> Sequence[Row]:
    return await measure()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
