"""Reading rows that somebody gives by hand: fields, ids, times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ossea.simulator.model.world import World


class SeedFault(ValueError):
    """A row that cannot be put in; the text names the field and says what is allowed."""


def check_fields(row: Mapping[str, Any], what: str, known: set[str]) -> None:
    unknown = sorted(set(row) - known)
    if unknown:
        raise SeedFault(f"{what}: unknown field {', '.join(unknown)}; known are {', '.join(sorted(known))}")


def read_text(row: Mapping[str, Any], name: str, what: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value:
        raise SeedFault(f"{what}: {name} must be a text")
    return value


def read_choice(row: Mapping[str, Any], name: str, what: str, choices: tuple[str, ...]) -> str:
    """One of `choices`; the first where the row has none."""
    value = row.get(name, choices[0])
    if value not in choices:
        raise SeedFault(f"{what}: {name} must be one of {', '.join(choices)}")
    return str(value)


def read_flag(row: Mapping[str, Any], name: str, what: str, *, default: bool) -> bool:
    value = row.get(name, default)
    if not isinstance(value, bool):
        raise SeedFault(f"{what}: {name} must be true or false")
    return value


def read_project(world: World, row: Mapping[str, Any], what: str) -> str | None:
    value = row.get("project_id")
    if value is not None and world.projects.find(str(value)) is None:
        raise SeedFault(f"{what}: project_id {value} names no project")
    return None if value is None else str(value)


def new_id(world: World, row: Mapping[str, Any], taken: Mapping[str, Any]) -> str:
    value = row.get("id")
    if value is None:
        return world.new_id()
    if not isinstance(value, str) or value != value.lower():
        raise SeedFault(f"id {value!r} must be a lower-case text")
    if value in taken:
        raise SeedFault(f"id {value} is taken")
    return value


def read_moment(row: Mapping[str, Any], name: str, default: float) -> float:
    value = row.get(name)
    return default if value is None else to_moment(value)


def to_moment(value: object) -> float:
    """Unix seconds, or RFC 3339 with an offset."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise SeedFault(f"{value!r} is no time; give Unix seconds or RFC 3339") from None
    if moment.tzinfo is None:
        raise SeedFault(f"{value!r} has no offset from UTC")
    return moment.timestamp()
