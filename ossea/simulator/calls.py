"""Numbered logs that can be read from any number on: the API calls, and what really happened to bytes and devices."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any

_KEPT = 200_000


class Log:
    """Entries carry `seq`, 1 and up without gaps while the process lives; the oldest go when there are too many."""

    def __init__(self) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self._last = 0

    def add(self, entry: dict[str, Any]) -> dict[str, Any]:
        self._last += 1
        entry["seq"] = self._last
        self._entries.append(entry)
        return entry

    def after(self, seq: int) -> list[dict[str, Any]]:
        if not self._entries:
            return []
        skipped = self._position_after(seq)
        return list(islice(self._entries, skipped, None))

    def _position_after(self, seq: int) -> int:
        low, high = 0, len(self._entries)
        while low < high:
            middle = (low + high) // 2
            if self._entries[middle]["seq"] <= seq:
                low = middle + 1
            else:
                high = middle
        return low

    def restore(self, entries: Iterable[dict[str, Any]]) -> None:
        """Entries of an earlier process, which may have gaps."""
        for entry in entries:
            self._entries.append(entry)
            self._last = max(self._last, int(entry["seq"]))

    def start_after(self, seq: int) -> None:
        self._last = max(self._last, seq)

    @property
    def last(self) -> int:
        return self._last

    def clear(self) -> None:
        self._entries.clear()


def is_read(command: str) -> bool:
    """Commands that change nothing."""
    return command.startswith(("list", "query", "get"))
