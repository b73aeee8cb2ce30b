"""Reading query parameters; whatever does not fit is `invalid_request` and names the field and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from oma.domain.errors import Code, OmaError

DEFAULT_LIMIT: Final = 50
HIGHEST_LIMIT: Final = 500
LONGEST_TEXT: Final = 1024


def invalid(field: str, sentence: str, allowed: object = None) -> OmaError:
    """`invalid_request` about one field; `allowed` says what may stand there."""
    more = {} if allowed is None else {"allowed": allowed}
    return OmaError(Code.INVALID_REQUEST, sentence, field=field, **more)


def check_names(request: web.Request, known: Iterable[str]) -> None:
    """Refuses parameters that this route does not know, and one given twice."""
    names = sorted(known)
    for name in request.query:
        if name not in names:
            listed = ", ".join(names) or "none"
            raise invalid(name[:64], f"There is no query parameter {name[:64]!r} here; possible: {listed}.", names)
        if len(request.query.getall(name)) > 1:
            raise invalid(name, f"{name} is given more than once; give it once.")


def read_text(request: web.Request, name: str) -> str | None:
    """The parameter's text; an empty one is as good as none."""
    text = request.query.get(name, "")
    if len(text) > LONGEST_TEXT:
        raise invalid(name, f"{name} has {len(text)} characters; at most {LONGEST_TEXT} are allowed.")
    if "\x00" in text:
        raise invalid(name, f"{name} holds a NUL character; leave it out.")
    return text or None


def read_limit(request: web.Request) -> int:
    text = request.query.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not 1 <= int(text) <= HIGHEST_LIMIT:  # noqa: PLR2004
        allowed = f"a whole number from 1 to {HIGHEST_LIMIT}"
        raise invalid("limit", f"limit must be {allowed}.", allowed)
    return int(text)


def read_choice(request: web.Request, name: str, choices: Iterable[str]) -> str | None:
    text = read_text(request, name)
    allowed = list(choices)
    if text is not None and text not in allowed:
        raise invalid(name, f"{name} must be one of: {', '.join(allowed)}.", allowed)
    return text


def read_flag(request: web.Request, name: str) -> bool | None:
    text = read_choice(request, name, ("true", "false"))
    return None if text is None else text == "true"


def read_time(request: web.Request, name: str) -> datetime | None:
    """RFC 3339 with its offset; a time without one would be somebody's local time."""
    text = read_text(request, name)
    if text is None:
        return None
    allowed = "an RFC 3339 time with its offset, such as 2026-01-31T03:00:00Z"
    try:
        # A plus sign that was not encoded arrives as a blank.
        at = datetime.fromisoformat(text.replace(" ", "+"))
        return at.astimezone(UTC) if at.tzinfo is not None else _refuse(name, allowed)
    except (ValueError, OverflowError):
        return _refuse(name, allowed)


def _refuse(name: str, allowed: str) -> datetime:
    raise invalid(name, f"{name} must be {allowed}.", allowed)


def read_seq(request: web.Request) -> int | None:
    """Where a stream goes on: the header `Last-Event-ID`, which browsers send, or `last_event_id`."""
    text = request.headers.get("Last-Event-ID", request.query.get("last_event_id", "")).strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:  # noqa: PLR2004  a 64-bit row number
        raise invalid("Last-Event-ID", "Last-Event-ID must be the id of an event of this stream: a whole number.")
    return int(text)
