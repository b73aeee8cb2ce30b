"""Whose local time stands in DATETIME columns."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from database.errors import DatabaseUnavailable
from database.zones import find_zone

NEW_YORK, BERLIN = ZoneInfo("America/New_York"), ZoneInfo("Europe/Berlin")


def offset(zone: ZoneInfo, month: int) -> timedelta | None:
    return datetime(2026, month, 1, tzinfo=zone).utcoffset()


def test_the_setting_wins() -> None:
    assert find_zone("Europe/Berlin", "EST", NEW_YORK) is BERLIN


@pytest.mark.parametrize("abbreviation", ["EST", "EDT"])
def test_an_abbreviation_that_the_host_uses_means_the_hosts_zone(abbreviation: str) -> None:
    """A server started in winter says EST, which alone would be five hours all the year."""
    assert find_zone(None, abbreviation, NEW_YORK) is NEW_YORK


@pytest.mark.parametrize(("system", "hours"), [("-05", -5), ("+01", 1), ("+00", 0), ("UTC", 0), ("-03:00", -3)])
def test_offsets_as_servers_give_them(system: str, hours: int) -> None:
    assert offset(find_zone(None, system, BERLIN), 7) == timedelta(hours=hours)


def test_a_name_that_the_zone_files_know() -> None:
    zone = find_zone(None, "CET", None)
    assert (offset(zone, 1), offset(zone, 7)) == (timedelta(hours=1), timedelta(hours=2))


@pytest.mark.parametrize(
    ("setting", "system"), [(None, "CEST"), (None, "+05:30"), ("Mars/Olympus", "UTC"), ("", "UTC")]
)
def test_no_guess(setting: str | None, system: str) -> None:
    with pytest.raises(DatabaseUnavailable, match="legacy_time_zone"):
        find_zone(setting, system, NEW_YORK)


def test_without_any_word_it_is_utc() -> None:
    assert offset(find_zone(None, None, None), 7) == timedelta(0)
