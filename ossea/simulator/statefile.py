"""State that survives `kill -9`: one file of JSON lines, each a batch of changed rows; written by one thread.

What is written survives the process, not a power cut: nobody's data depends on a simulator's.
"""

from __future__ import annotations

import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ossea.simulator.model.machine import Change

_NAME = "state.jsonl"
_COMPACT_BYTES = 64 << 20


@dataclass(slots=True)
class Stored:
    """What the file holds: the last row of each id in the order they first came, and named values."""

    rows: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)

    def changes(self) -> list[Change]:
        return [(table, row_id, row) for (table, row_id), row in self.rows.items()]


class StateFile:
    """Append-only; `compact` writes it anew."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / _NAME
        self._fd: int | None = None
        self._pending: list[str] = []
        self._writing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "state-file")
        self._written = 0

    async def load(self) -> Stored:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._load)

    async def compact(self, stored: Stored) -> None:
        """Replace the file by one that holds just this; appending goes on behind it."""
        lines = _lines(stored)
        await self.flush()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._replace, lines)

    @property
    def wants_compacting(self) -> bool:
        return self._written > _COMPACT_BYTES

    def append(
        self, rows: list[Change], values: dict[str, Any] | None = None, call: dict[str, Any] | None = None
    ) -> None:
        """Put a batch into the line; it is in the file when `flush` has returned."""
        batch: dict[str, Any] = {}
        if rows:
            batch["rows"] = rows
        if values:
            batch["values"] = values
        if call is not None:
            batch["call"] = call
        if batch:
            self._pending.append(json.dumps(batch, separators=(",", ":")))

    async def flush(self) -> None:
        """Everything appended so far is written; those who wait at the same time share one write."""
        while self._pending or self._writing is not None:
            if self._writing is None:
                lines, self._pending = self._pending, []
                self._writing = asyncio.create_task(self._write_lines(lines))
            waited = self._writing
            mine_is_in = not self._pending
            await asyncio.shield(waited)
            if mine_is_in:
                return

    async def close(self) -> None:
        await self.flush()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown(wait=False)

    async def _write_lines(self, lines: list[str]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, lines)
        finally:
            self._writing = None

    # In the thread

    def _load(self) -> Stored:
        stored = Stored()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not self._path.exists():
            return stored
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                if not line.endswith("\n"):
                    break  # the process was killed while it wrote this line; nobody was told of it
                _take(stored, json.loads(line))
        return stored

    def _replace(self, lines: list[str]) -> None:
        part = self._path.with_suffix(".part")
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        part.replace(self._path)
        self._close()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._written = 0

    def _write(self, lines: list[str]) -> None:
        if self._fd is None:
            raise RuntimeError("the state file is not open")
        rest = memoryview("".join(f"{line}\n" for line in lines).encode())
        self._written += len(rest)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _take(stored: Stored, batch: dict[str, Any]) -> None:
    for table, row_id, row in batch.get("rows", ()):
        if row is None:
            stored.rows.pop((table, row_id), None)
        else:
            stored.rows[table, row_id] = row
    stored.values.update(batch.get("values", {}))
    if "call" in batch:
        stored.calls.append(batch["call"])


def _lines(stored: Stored) -> list[str]:
    lines = [json.dumps({"values": stored.values}, separators=(",", ":"))]
    lines += [json.dumps({"rows": [change]}, separators=(",", ":")) for change in stored.changes()]
    lines += [json.dumps({"call": call}, separators=(",", ":")) for call in stored.calls]
    return lines
