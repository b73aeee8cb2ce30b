"""Lists read whole, page by page, from a server that gives no snapshot between pages.

Sources: `BaseListCmd` (pages, the limit and its text), `ListResponse` (`count` is the total where the command knows
it, else the page's own length).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ossea.errors import PARAM_ERROR, CloudStackError, ErrorKind, int_or_none

MAX_PAGE_SIZE: Final = 500
MAX_PAGES: Final = 400
MAX_READINGS: Final = 5

Item = Mapping[str, Any]
Ask = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]

_LOWERED = re.compile(r"page size.*?(\d+)", re.IGNORECASE)


class Pager:
    """Reads lists; remembers the page size that this server allows (`default.page.size` may be lowered)."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._page_size = MAX_PAGE_SIZE

    async def list_all(
        self,
        command: str,
        array: str,
        params: Mapping[str, Any],
        key: Callable[[Item], str],
        *,
        whole: bool = True,
    ) -> list[Item]:
        """Every item once, in the server's order; `key` tells items apart, `array` names the list in the envelope.

        A list that changes between pages is read again: an item that moved to a page already read would be missing,
        and missing is an alarm; `whole=False` where it is none. Raises `CloudStackError`.
        """
        for _ in range(MAX_READINGS):
            reading = await self._read_pages(command, array, params, key)
            if reading.is_whole or not whole:
                return list(reading.items.values())
        text = f"the list changed between pages in {MAX_READINGS} readings"
        raise CloudStackError(ErrorKind.BROKEN_ANSWER, command, text)

    async def _read_pages(
        self, command: str, array: str, params: Mapping[str, Any], key: Callable[[Item], str]
    ) -> _Reading:
        reading = _Reading()
        for page in range(1, MAX_PAGES + 1):
            page_size = self._page_size
            answer = await self._ask_page(command, params, page)
            if page > 1 and self._page_size != page_size:
                return _Reading(is_whole=False)  # the limit was lowered meanwhile: pages no longer line up
            items, count = _content(command, array, answer, page)
            reading.add(items, count, key)
            if not items or (len(items) < self._page_size and len(reading.items) >= count):
                return reading.close()
        raise CloudStackError(ErrorKind.BROKEN_ANSWER, command, f"more than {MAX_PAGES} pages")

    async def _ask_page(self, command: str, params: Mapping[str, Any], page: int) -> dict[str, Any]:
        while True:
            try:
                return await self._ask(command, {**params, "page": page, "pagesize": self._page_size})
            except CloudStackError as error:
                allowed = _allowed_page_size(error, self._page_size)
                if allowed is None:
                    raise
                self._page_size = allowed


@dataclass(slots=True)
class _Reading:
    """One attempt at a list."""

    items: dict[str, Item] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    is_whole: bool = True

    def add(self, items: list[Item], count: int, key: Callable[[Item], str]) -> None:
        for item in items:
            self.items.setdefault(key(item), item)
        if items:
            self.counts.append(count)
            self.lengths.append(len(items))

    def close(self) -> _Reading:
        """Judges whether the pages belong together: where `count` is a total, all tell the same and no fewer came."""
        if self.counts != self.lengths:
            self.is_whole = len(set(self.counts)) == 1 and len(self.items) >= self.counts[0]
        return self


def _content(command: str, array: str, answer: Mapping[str, Any], page: int) -> tuple[list[Item], int]:
    """The items and `count`. An empty list is an empty object, without either; so is a page behind the last."""
    items = answer.get(array, [])
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise CloudStackError(ErrorKind.BROKEN_ANSWER, command, f"{array!r} is no list of objects")
    count = int_or_none(answer.get("count"))
    if page == 1 and count and not items:
        raise CloudStackError(ErrorKind.BROKEN_ANSWER, command, f"the answer counts {count} but holds no {array!r}")
    return items, len(items) if count is None else count


def _allowed_page_size(error: CloudStackError, asked: int) -> int | None:
    """The smaller size to ask for when the error says that the page was too big; None when it says anything else."""
    if error.errorcode != PARAM_ERROR or asked <= 1:
        return None
    named = _LOWERED.search(error.text)
    if named is None:
        return None
    allowed = int(named[1])
    return allowed if 0 < allowed < asked else asked // 2
