"""Reading a command's parameters as CloudStack's `ParamProcessWorker` does; names are lower-case."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ossea.simulator.model.errors import invalid_value, missing_parameter

_MAP_KEY = re.compile(r"^(?P<name>[a-z]+)\[(?P<row>\d+)\]\.(?P<field>\w+)$")


class Params:
    """The parameters of one call; each reader raises the `ApiError` that CloudStack would answer."""

    def __init__(self, command: str, values: Mapping[str, str]) -> None:
        self.command = command
        self.values: dict[str, str] = {name.lower(): value for name, value in values.items()}

    def find(self, name: str) -> str | None:
        """The value, or None where it is absent or empty."""
        return self.values.get(name) or None

    def get(self, name: str) -> str:
        value = self.find(name)
        if value is None:
            raise missing_parameter(self.command, name)
        return value

    def find_int(self, name: str) -> int | None:
        value = self.find(name)
        if value is None:
            return None
        if not re.fullmatch(r"[+-]?\d{1,18}", value):
            raise invalid_value(self.command, name, value)
        return int(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """As Java's `Boolean.valueOf`: only "true" in any case is true."""
        value = self.find(name)
        return default if value is None else value.lower() == "true"

    def ids(self, name: str) -> list[str]:
        value = self.find(name)
        return [] if value is None else [part.strip() for part in value.split(",") if part.strip()]

    def rows(self, name: str) -> list[dict[str, str]]:
        """A map parameter: `tags[0].key=a`, `tags[0].value=b`, as a list in the order of its numbers."""
        found: dict[int, dict[str, str]] = {}
        for key, value in self.values.items():
            match = _MAP_KEY.match(key)
            if match and match["name"] == name:
                found.setdefault(int(match["row"]), {})[match["field"]] = value
        return [found[number] for number in sorted(found)]
