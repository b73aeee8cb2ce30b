"""What lists are asked for by, and how they are told: a page at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class ContextFilter:
    """What `GET /vm-contexts` filters by; `needs_cleanup` is judged by the service."""

    status: str | None = None
    q: str | None = None


@dataclass(frozen=True, slots=True)
class JobFilter:
    vm: str | None = None
    context_id: str | None = None
    status: str | None = None
    operation: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    correlation_id: str | None = None


@dataclass(frozen=True, slots=True)
class IssueFilter:
    """`state` None: whatever it is."""

    state: str | None = None
    vm: str | None = None
    context_id: str | None = None
    job_id: str | None = None
    severity: str | None = None
    kind: str | None = None
    q: str | None = None
    """A part of the title, whatever its case."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T_co]):
    """Some rows in order, and where the next ones begin."""

    items: tuple[T_co, ...]
    next_cursor: str | None
