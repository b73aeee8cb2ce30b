"""What the admin API reads out of a request, and what it says when that makes no sense."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web


class NotFound(Exception):
    """No such entity."""


class BadInput(ValueError):
    """The body or the query makes no sense; the text says why."""


async def read_body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except json.JSONDecodeError as error:
        raise BadInput(f"the body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadInput("the body must be an object")
    return body


def read_number(request: web.Request, name: str, default: int) -> int:
    value = request.query.get(name, str(default))
    if not value.isdecimal():
        raise BadInput(f"{name} must be a whole number, 0 or more")
    return int(value)


def there(row: Any, what: str, row_id: str) -> Any:
    if row is None:
        raise NotFound(f"no {what} {row_id}")
    return row
