"""Where a command writes: data to stdout, everything else to stderr; and what foreign text may look like there."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Final, TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from oma.gui.words import split_command

COMMAND_INDENT: Final = 4
WIDE: Final = 10_000
"""Columns where nobody's screen is: lines are never wrapped or cut in a pipe."""
INVISIBLE: Final = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufeff"
)
"""Characters that reorder or break a line without being seen."""
FIRST_PRINTABLE: Final = 0x20
DELETE, LAST_CONTROL = 0x7F, 0x9F


def visible(text: object) -> str:
    """Foreign text, harmless on a terminal: control and reordering characters are written as escapes."""
    return "".join(_visible_character(one) for one in str(text))


def _visible_character(one: str) -> str:
    point = ord(one)
    if point < FIRST_PRINTABLE or DELETE <= point <= LAST_CONTROL:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if one in INVISIBLE else one


class Output:
    """The two consoles of one command. Colours only on a terminal, and never with `--no-color` or NO_COLOR."""

    def __init__(
        self,
        *,
        as_json: bool = False,
        no_color: bool = False,
        quiet: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        plain = no_color or bool(os.environ.get("NO_COLOR"))
        self.as_json, self.quiet = as_json, quiet
        self.data = _console(stdout or sys.stdout, plain=plain)
        self.notes = _console(stderr or sys.stderr, plain=plain)

    @property
    def live(self) -> bool:
        """Whether progress may be drawn over and over on the same lines."""
        return self.notes.is_terminal and not self.notes.is_dumb_terminal and not self.quiet

    def print(self, *parts: RenderableType) -> None:
        """Data. Texts are printed as they are: no markup is read out of them."""
        for part in parts:
            self.data.print(part, markup=False, highlight=False, emoji=False, soft_wrap=isinstance(part, str | Text))

    def print_json(self, value: Any) -> None:
        self.data.file.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")

    def print_json_line(self, value: Any) -> None:
        self.data.file.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")

    def note(self, part: RenderableType) -> None:
        """Progress and advice; nothing of it with `-q`."""
        if not self.quiet:
            self.notes.print(part, markup=False, highlight=False, emoji=False, soft_wrap=isinstance(part, str | Text))

    def complain(self, part: RenderableType) -> None:
        """An error; also with `-q`."""
        self.notes.print(part, markup=False, highlight=False, emoji=False, soft_wrap=isinstance(part, str | Text))


def _console(file: TextIO, *, plain: bool) -> Console:
    terminal = file.isatty()
    return Console(
        file=file,
        no_color=plain,
        color_system="auto" if terminal and not plain else None,
        width=None if terminal else WIDE,
        legacy_windows=False,
    )


def print_item(output: Output, mark: str, text: str, *, indent: int = 2, style: str = "") -> None:
    """A line of data behind its mark, as `drawn_item` draws it."""
    for part in drawn_item(output.data, mark, text, indent=indent, style=style):
        output.print(part)


def drawn_item(
    console: Console, mark: str, text: str, *, indent: int = 2, style: str = ""
) -> tuple[RenderableType, ...]:
    """On a terminal a long line goes on under its own beginning, and a command at its end stands whole on a line.

    In a pipe nothing is ever cut.
    """
    if not console.is_terminal:
        line = Text(f"{' ' * indent}{mark}", style)
        return (line.append(f" {text}", ""),)
    before, command = split_command(text)
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(f"{' ' * indent}{mark}", style), Text(before.rstrip()))
    return (grid, Text(f"{' ' * (indent + COMMAND_INDENT)}{command}")) if command else (grid,)


def new_table(*columns: str) -> Table:
    """A table without lines: its columns survive in a pipe."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def print_table(output: Output, table: Table) -> None:
    """Prints a table without the blanks that fill its last column."""
    if output.data.is_terminal:
        output.print(table)
        return
    with output.data.capture() as captured:
        output.data.print(table, markup=False, highlight=False, emoji=False)
    for line in captured.get().splitlines():
        output.data.file.write(line.rstrip() + "\n")
