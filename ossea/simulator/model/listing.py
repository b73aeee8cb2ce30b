"""Paging and envelopes of the list commands (`BaseListCmd`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, TypeVar

from ossea.simulator.model.errors import refused
from ossea.simulator.model.params import Params
from ossea.simulator.model.settings import Settings

T = TypeVar("T")


def page_of(params: Params, settings: Settings) -> tuple[int, int]:
    """First index and length of the page that a call wants.

    `default.page.size` is also the largest page; `pagesize` without `page` and a larger page answer 431.
    """
    most = settings.default_page_size
    size = params.find_int("pagesize")
    page = params.find_int("page")
    if size is not None and size > most:
        raise refused(f"Page size can not exceed max allowed page size value: {most}")
    if size is not None and page is None:
        raise refused('"page" parameter is required when "pagesize" is specified')
    if size is not None and size < 1:
        raise refused(f"Page size must be from 1 to {most}")
    if page is None:
        return 0, most
    return max(page - 1, 0) * (size or most), size or most


def page_json(
    key: str, rows: Sequence[T] | Iterable[T], params: Params, settings: Settings, view: Callable[[T], dict[str, Any]]
) -> dict[str, Any]:
    """`{"count": all, key: [one page]}`, or an empty object where nothing is on the page."""
    first, length = page_of(params, settings)
    found = rows if isinstance(rows, Sequence) else list(rows)
    items = [view(row) for row in islice(found, first, first + length)]
    if not items:
        return {}
    return {"count": len(found), key: items}
