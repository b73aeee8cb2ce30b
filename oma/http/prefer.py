"""The `Prefer` header (RFC 7240): how long a caller of the main job waits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from oma.http.query import invalid

ALLOWED: Final = ("respond-async", "wait=SECONDS")
IGNORED: Final = frozenset({"return", "handling"})
"""Preferences of the RFC that change nothing here."""

PREFERENCE: Final = re.compile(r"""^([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*("[^"]*"|[^\s;,"]*))?(?:\s*;.*)?$""")
LONGEST_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long to wait, in seconds, and what of the wish was followed."""

    wait_s: float
    applied: str | None = None


def read_prefer(headers: Iterable[str], longest_s: float) -> Waiting:
    """Without a preference the longest wait. `wait=N` counts where both are given (RFC 7240, 4.3).

    Unknown preferences are refused, though the RFC would have them ignored: a mistyped `respond-async` would otherwise
    hold the caller for most of an hour.
    """
    wait_s: float | None = None
    respond_async = False
    for part in _parts(headers):
        found = PREFERENCE.match(part)
        name = found[1].lower() if found else ""
        value = found[2] if found else None
        if name == "respond-async" and not value:
            respond_async = True
        elif name == "wait":
            wait_s = _read_seconds(value) if wait_s is None else wait_s
        elif name not in IGNORED:
            raise invalid("Prefer", f"Prefer {part[:64]!r} is not possible; possible: {', '.join(ALLOWED)}.", ALLOWED)
    if wait_s is not None:
        return Waiting(min(wait_s, longest_s), f"wait={min(wait_s, longest_s):g}")
    return Waiting(0.0, "respond-async") if respond_async else Waiting(longest_s)


def _parts(headers: Iterable[str]) -> list[str]:
    return [part.strip() for header in headers for part in header.split(",") if part.strip()]


def _read_seconds(value: str | None) -> float:
    digits = (value or "").strip('"')
    if not (digits.isascii() and digits.isdigit()) or len(digits) > LONGEST_DIGITS:
        raise invalid("Prefer", "Prefer wait must be a whole number of seconds from 0, such as wait=30.", ALLOWED)
    return float(digits)
