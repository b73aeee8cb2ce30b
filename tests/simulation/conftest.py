"""The simulation runs its own event loop, in which SQLite in memory is called directly."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _no_blocking_calls() -> None:
    """Nothing waits there but virtual time: see tests/conftest.py for what this takes the place of."""
