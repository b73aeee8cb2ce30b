"""A row of the table that `make bench` prints, and how it is printed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One measured case. `bound_s` is what the rules of the world require at least; `limit` bounds wall / bound."""

    name: str
    wall_s: float
    bound_s: float | None = None
    limit: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return None if self.bound_s is None else self.wall_s / self.bound_s

    @property
    def holds(self) -> bool:
        return self.limit is None or self.ratio is None or self.ratio <= self.limit


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def print_table(title: str, rows: Sequence[Row]) -> None:
    table = Table(title=title, title_justify="left")
    for column, justify in (("case", "left"), ("wall s", "right"), ("bound s", "right"), ("wall / bound", "right")):
        table.add_column(column, justify="right" if justify == "right" else "left")
    table.add_column("limit", justify="right")
    table.add_column("note")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.wall_s:.2f}",
            "" if row.bound_s is None else f"{row.bound_s:.2f}",
            "" if row.ratio is None else f"{row.ratio:.3f}",
            "" if row.limit is None else f"{row.limit:.2f} {'holds' if row.holds else 'FAILS'}",
            row.note,
        )
    Console(width=150).print(table)
