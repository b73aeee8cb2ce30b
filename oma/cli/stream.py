"""Server-Sent Events, read line by line (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; `id` goes back as `Last-Event-ID` when the stream is opened again."""

    id: str
    type: str
    data: dict[str, Any]

    @property
    def sentence(self) -> str:
        return str(self.data.get("sentence", ""))


def parse_events(lines: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Complete events only: one that was cut off is sent again after the next connect."""
    last_id, kind, data = "", "", ""
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if not line:
            if data:
                yield ServerEvent(last_id, kind or "message", _as_object(data))
            kind, data = "", ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "id":
                last_id = value
            case "event":
                kind = value
            case "data":
                data = f"{data}\n{value}" if data else value


def _as_object(data: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
