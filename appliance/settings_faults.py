"""What is wrong with the settings, said so that it can be mended: place, key, problem, what is allowed."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class SettingFault:
    """`place` is the file with its line, or the variable's name; `allowed` says what may stand there."""

    place: str
    key: str
    problem: str
    allowed: str

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.problem}; allowed: {self.allowed}"


class SettingsError(Exception):
    """The settings can't be used. `faults` names all that is wrong, not only the first."""

    def __init__(self, faults: tuple[SettingFault, ...]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class SettingError(ValueError):
    """Raised by a validator that knows better than its type what is allowed."""

    def __init__(self, problem: str, allowed: str) -> None:
        super().__init__(problem)
        self.allowed = allowed


@dataclass(slots=True)
class Gathered:
    """Raw values by section and key, where each came from, and what already went wrong in gathering them."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[tuple[str, ...], str] = field(default_factory=dict)
    faults: list[SettingFault] = field(default_factory=list)
    source: str = "defaults"

    def place_of(self, key: tuple[str, ...]) -> str:
        """The nearest known place: the key's own, else its section's, else that of a key below it, else the file."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        below = (place for known, place in self.places.items() if known[: len(key)] == key)
        return next(below, self.source)


def collect_faults(model: type[Model], gathered: Gathered) -> tuple[Model | None, tuple[SettingFault, ...]]:
    """The validated settings, or every fault; a value is never repeated, it may be a secret."""
    try:
        return model.model_validate(gathered.values), tuple(gathered.faults)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        found = [_as_fault(model, gathered, detail) for detail in details]
        unique = {(fault.place, fault.key): fault for fault in reversed([*gathered.faults, *found])}
        return None, tuple(reversed(unique.values()))


def _as_fault(model: type[BaseModel], gathered: Gathered, detail: ErrorDetails) -> SettingFault:
    path = tuple(str(part) for part in detail["loc"])[:2]
    key, place = ".".join(path), gathered.place_of(path)
    if detail["type"] == "extra_forbidden":
        return SettingFault(place, key, "there is no such setting", known_names(model, path))
    raised = detail.get("ctx", {}).get("error")
    if isinstance(raised, SettingError):
        return SettingFault(place, key, str(raised), raised.allowed)
    return SettingFault(place, key, _as_problem(detail), allowed_values(field_at(model, path)))


def _as_problem(detail: ErrorDetails) -> str:
    return detail["msg"][:1].lower() + detail["msg"][1:]


def known_names(model: type[BaseModel], path: tuple[str, ...]) -> str:
    """The names that may stand where an unknown one stood, the nearest first."""
    owner: Any = model if len(path) == 1 else model.model_fields[path[0]].annotation
    names = list(owner.model_fields)
    near = difflib.get_close_matches(path[-1], names, n=1)
    hint = f"{near[0]} (nearest) of " if near else ""
    return hint + ", ".join(names)


def field_at(model: type[BaseModel], path: tuple[str, ...]) -> FieldInfo | None:
    section = model.model_fields.get(path[0])
    if section is None or len(path) == 1:
        return section
    owner: Any = section.annotation
    found: FieldInfo | None = owner.model_fields.get(path[1])
    return found


def allowed_values(info: FieldInfo | None) -> str:
    """In words, from the field's type and bounds."""
    if info is None:
        return "a table of settings"
    base, bounds = _unwrapped(info)
    if get_origin(base) is Literal:
        return " or ".join(str(value) for value in get_args(base))
    if get_origin(base) is tuple:
        return "a list of texts"
    words = {bool: "true or false", int: "a whole number", float: "a number"}
    if base in words:
        return words[base] + _as_range(bounds)
    if isinstance(base, type) and issubclass(base, BaseModel):
        return "a table of settings"
    return _as_text_rule(bounds)


def _unwrapped(info: FieldInfo) -> tuple[Any, list[Any]]:
    """The type without `None` and annotations, and all bounds."""
    base: Any = info.annotation
    bounds = list(info.metadata)
    choices = [choice for choice in get_args(base) if choice is not type(None)]
    if get_origin(base) is not tuple and get_origin(base) is not Literal and choices:
        base = choices[0]
    while hasattr(base, "__metadata__"):
        bounds += base.__metadata__
        base = base.__origin__
    return base, bounds


def _as_range(bounds: list[Any]) -> str:
    flat = [part for bound in bounds for part in (bound.metadata if isinstance(bound, FieldInfo) else [bound])]
    words = [
        f"{word} {getattr(bound, name)}"
        for bound in flat
        for name, word in (("gt", "greater than"), ("ge", "at least"), ("le", "at most"))
        if getattr(bound, name, None) is not None
    ]
    return " " + ", ".join(words) if words else ""


def _as_text_rule(bounds: list[Any]) -> str:
    lengths = [
        f"{word} {getattr(bound, name)}"
        for bound in bounds
        for name, word in (("min_length", "at least"), ("max_length", "at most"))
        if getattr(bound, name, None) is not None
    ]
    patterns = [bound.pattern for bound in bounds if getattr(bound, "pattern", None)]
    text = "a text" + (f" of {' and '.join(lengths)} characters" if lengths else "")
    return text + (f" that matches {patterns[0]}" if patterns else "")
