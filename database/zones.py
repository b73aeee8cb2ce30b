"""Whose local time stands in the DATETIME columns of an existing installation."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from database.errors import DatabaseUnavailable

_OFFSET = re.compile(r"([+-])(\d{2})(?::?00)?")
LOCALTIME = Path("/etc/localtime")


def find_zone(setting: str | None, system_zone: str | None, host: ZoneInfo | None) -> ZoneInfo:
    """The zone that `database.legacy_time_zone` names, else the one that the server runs in.

    `system_zone` is the server's `@@system_time_zone`, which may be an abbreviation that several zones share. Where the
    `host` we run on uses the same abbreviation, its zone is meant: server and appliance are one machine there.
    Raises `DatabaseUnavailable` where neither names a zone: a guess would shift times by hours.
    """
    if setting is not None:
        return _named(setting, "database.legacy_time_zone")
    name = system_zone or "UTC"
    if host is not None and name in _abbreviations(host):
        return host
    offset = _OFFSET.fullmatch(name)
    if offset is not None:
        sign, hours = offset.groups()
        # The names of these zones count westwards.
        return ZoneInfo(f"Etc/GMT{'-' if sign == '+' else '+'}{int(hours)}" if int(hours) else "UTC")
    return _named(name, "the server's system_time_zone")


def read_host_zone() -> ZoneInfo | None:
    """The zone of this machine; None where it can't be told."""
    try:
        name = LOCALTIME.resolve(strict=True)
        with name.open("rb") as file:
            return ZoneInfo.from_file(file, key=str(LOCALTIME))
    except (OSError, ValueError):
        return None


def _abbreviations(zone: ZoneInfo) -> set[str]:
    year = datetime.now(zone).year
    return {name for month in (1, 7) if (name := datetime(year, month, 1, tzinfo=zone).tzname())}


def _named(name: str, source: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise DatabaseUnavailable(
            f"{source} is {name!r}, which names no time zone; set database.legacy_time_zone to the appliance's, "
            "like 'Europe/London'"
        ) from error
