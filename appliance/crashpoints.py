"""Named places at which a test lets the program die.

A program reaches its points at every write and every call that changes something elsewhere, once before and once
after. In production nobody listens: reaching a point is one comparison, and no setting, environment variable or request
can make anybody listen; only code of the same process can, for the length of a `with` block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[str], None]
"""Called with the point's name in the thread that reached it; what it raises is raised there."""

BEFORE, AFTER = "before", "after"

_points: set[str] = set()
_listener: Listener | None = None


class CrashPoint:
    """One place; declared once, where its module is loaded. Raises `ValueError` for a name that is taken."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        if name in _points:
            raise ValueError(f"the crash point {name} is declared twice")
        _points.add(name)
        self.name = name

    def reach(self) -> None:
        if _listener is not None:
            _listener(self.name)


class Change:
    """The two points around one change: `with MAPPING_SAVED: …`. After one that raised, the second is not reached."""

    __slots__ = ("_after", "_before")

    def __init__(self, name: str) -> None:
        self._before = CrashPoint(f"{name}.{BEFORE}")
        self._after = CrashPoint(f"{name}.{AFTER}")

    def __enter__(self) -> None:
        self._before.reach()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._after.reach()


def list_points(prefix: str = "") -> list[str]:
    """Names of the points that the modules loaded so far have declared, in order."""
    return sorted(name for name in _points if name.startswith(prefix))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """For tests. Raises `RuntimeError` where somebody listens already."""
    global _listener  # noqa: PLW0603 - one process, one listener: a point must find it without being handed anything
    if _listener is not None:
        raise RuntimeError("somebody listens to the crash points already")
    _listener = listener
    try:
        yield
    finally:
        _listener = None
