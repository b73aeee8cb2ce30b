"""A stand-in for a port whose other side comes, goes, or changes while the daemon runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any


class Late:
    """Asks for the present object at every call; all methods of it are coroutines.

    `current` raises what callers of the port know how to take while there is no such object. `foreign` maps errors
    that the port does not know to those that it does.
    """

    def __init__(
        self,
        current: Callable[[], Any],
        foreign: Mapping[type[Exception], Callable[[Exception], Exception]] | None = None,
    ) -> None:
        self._current = current
        self._foreign = foreign or {}

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return await getattr(self._current(), name)(*args, **kwargs)
            except tuple(self._foreign) as error:
                raise self._foreign[type(error)](error) from error

        return call
