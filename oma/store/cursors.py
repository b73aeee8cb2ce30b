"""Opaque cursors: where the next page of a list begins, as the keys of the last row of this one."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from oma.domain.errors import Code, OmaError
from oma.ports import Page

T = TypeVar("T")
LARGEST_NUMBER = 2**63 - 1


def encode_cursor(list_name: str, *keys: str | int) -> str:
    text = json.dumps([list_name, *keys], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(list_name: str, cursor: str, kinds: Sequence[type]) -> list[Any]:
    """The keys in it; raises `OmaError` with `invalid_request` for anything that this list did not give out."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        name, *keys = json.loads(text)
    except (binascii.Error, ValueError, TypeError):
        raise _bad_cursor() from None
    if name != list_name or len(keys) != len(kinds):
        raise _bad_cursor()
    if not all(_is_key(key, kind) for key, kind in zip(keys, kinds, strict=True)):
        raise _bad_cursor()
    return list(keys)


def decode_time(text: str) -> datetime:
    """A time from within a cursor."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise _bad_cursor() from None
    if at.tzinfo is None:
        raise _bad_cursor()
    return at


def build_page(rows: Sequence[T], limit: int, cursor_of: Callable[[T], str]) -> Page[T]:
    """A page of `limit` from rows that were read with one to spare."""
    items = tuple(rows[:limit])
    return Page(items, cursor_of(items[-1]) if len(rows) > limit else None)


def _is_key(key: Any, kind: type) -> bool:
    if kind is int:
        return isinstance(key, int) and not isinstance(key, bool) and 0 <= key <= LARGEST_NUMBER
    return isinstance(key, kind)


def _bad_cursor() -> OmaError:
    return OmaError(
        Code.INVALID_REQUEST,
        "The cursor is not one that this list gave out; leave it out to begin with the first page.",
        field="cursor",
        allowed="the next_cursor of the page before, unchanged",
    )
