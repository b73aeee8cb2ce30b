"""The page of waits names every time that can be set, with its default, and constants as they stand in the code."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

from appliance.settings import Settings

PAGE = Path(__file__).resolve().parents[2] / "docs/explanation/waits.md"
NAMED = re.compile(r"`([a-z_]+(?:\.[a-z_]+)*\.[A-Za-z_]+)` ([0-9]+(?:\.[0-9]+)?)")
COUNTS = frozenset(
    {
        "cloudstack.job_expire_minutes",
        "cloudstack.retry_attempts",
        "cloudstack.circuit_silences",
        "volume_daemon.retry_attempts",
        "volume_daemon.circuit_silences",
        "recovery.revert_attempts",
        "recovery.job_recoveries",
    }
)
"""What bounds a wait besides times."""


def shown() -> list[tuple[str, float]]:
    return [(name, float(number)) for name, number in NAMED.findall(PAGE.read_text(encoding="utf-8"))]


def settable() -> dict[str, float]:
    values = Settings().model_dump()
    return {
        f"{section}.{key}": value
        for section, keys in values.items()
        for key, value in keys.items()
        if key.endswith("_s") or f"{section}.{key}" in COUNTS
    }


def value_of(name: str) -> float:
    found = settable().get(name)
    return float(pkgutil.resolve_name(name)) if found is None else found


def test_every_time_that_can_be_set_is_on_the_page() -> None:
    assert sorted(set(settable()) - {name for name, _ in shown()}) == []


@pytest.mark.parametrize(("name", "number"), sorted(set(shown())))
def test_what_the_page_says_is_so(name: str, number: float) -> None:
    assert value_of(name) == number


def test_every_row_has_a_bound() -> None:
    """In the settings, in the code, or in words that say whose end it is."""
    rows = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ") and "---" not in line
    ]
    rows = [row for row in rows if not row.startswith("| wait | bound |")]
    unbounded = [row for row in rows if not NAMED.search(row)]
    assert len(rows) > 30
    assert unbounded == []
