"""Reading rows for many ids at once: one query for a page, however many VMs are on it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import BindParameter, Select, bindparam
from sqlalchemy.engine import Connection, RowMapping

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

MOST_IDS = 10_000
"""Ids in one statement; SQLite takes 32,766 parameters."""

IDS: Final[BindParameter[Any]] = bindparam("ids", expanding=True)
"""What a query of `rows_for` is about: `column.in_(IDS)`. So it can be built once, however many ids it is asked for."""


def rows_for(connection: Connection, query: Select[Any], ids: Iterable[Any]) -> Iterator[RowMapping]:
    """The query's rows for these ids; no statement where there are none."""
    wanted = sorted(set(ids))
    for start in range(0, len(wanted), MOST_IDS):
        yield from connection.execute(query, {"ids": wanted[start : start + MOST_IDS]}).mappings()


def group(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """In the order in which they come."""
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def flatten(groups: dict[K, list[T]], keys: Sequence[K]) -> tuple[T, ...]:
    return tuple(item for key in keys for item in groups.get(key, ()))
