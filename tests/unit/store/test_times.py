from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlalchemy.dialects import mysql, sqlite

from database.times import (
    LegacyTime,
    LegacyTimes,
    UtcTime,
    find_local_columns,
    find_meanings,
    is_ambiguous,
    local_to_utc,
    read_clock,
    set_legacy_times,
)

NEW_YORK = ZoneInfo("America/New_York")
BERLIN = ZoneInfo("Europe/Berlin")


def local(text: str) -> datetime:
    """A time without a zone, as a driver hands it out."""
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("value", "zone", "utc"),
    [
        (local("2026-07-01 12:00"), NEW_YORK, datetime(2026, 7, 1, 16, 0, tzinfo=UTC)),
        # repeated: the later of the two
        (local("2026-11-01 01:30"), NEW_YORK, datetime(2026, 11, 1, 6, 30, tzinfo=UTC)),
        (local("2026-10-25 02:30"), BERLIN, datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
        # left out: the later of the two as well
        (local("2026-03-29 02:30"), BERLIN, datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
    ],
)
def test_local_times_mean_the_later_of_what_they_may_mean(value: datetime, zone: ZoneInfo, utc: datetime) -> None:
    assert local_to_utc(value, zone) == utc


def test_both_meanings_of_a_local_time() -> None:
    repeated = find_meanings(local("2026-10-25 02:30"), BERLIN)
    assert repeated is not None
    assert (repeated.earliest, repeated.latest, repeated.repeated) == (
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
        True,
    )
    left_out = find_meanings(local("2026-03-29 02:30"), BERLIN)
    assert left_out is not None
    assert (left_out.latest, left_out.repeated) == (local_to_utc(local("2026-03-29 02:30"), BERLIN), False)
    assert find_meanings(local("2026-07-01 12:00"), BERLIN) is None


def test_which_times_have_two_meanings() -> None:
    assert is_ambiguous(local("2026-11-01 01:30"), NEW_YORK)
    assert not is_ambiguous(local("2026-11-01 03:30"), NEW_YORK)


@given(st.datetimes(min_value=local("1990-01-01"), max_value=local("2090-01-01"), timezones=st.just(UTC)))
def test_a_time_written_locally_is_never_read_as_earlier(at: datetime) -> None:
    dialect = mysql.dialect()
    set_legacy_times(dialect, LegacyTimes(NEW_YORK, frozenset({"failover_jobs.created_at"})))
    column = LegacyTime("failover_jobs.created_at")

    read = column.process_result_value(column.process_bind_param(at, dialect), dialect)

    assert read is not None
    assert read - at in (timedelta(0), timedelta(hours=1))


def test_only_the_named_columns_are_local() -> None:
    dialect = mysql.dialect()
    set_legacy_times(dialect, LegacyTimes(NEW_YORK, frozenset({"failover_jobs.created_at"})))
    at = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)

    assert LegacyTime("failover_jobs.updated_at").process_bind_param(at, dialect) == local("2026-07-01 12:00")
    assert LegacyTime("failover_jobs.created_at").process_bind_param(at, dialect) == local("2026-07-01 08:00")
    assert UtcTime().process_bind_param(at, dialect) == local("2026-07-01 12:00")
    assert LegacyTime("failover_jobs.created_at").process_bind_param(at, mysql.dialect()) == local("2026-07-01 12:00")


@pytest.mark.parametrize("column", [UtcTime(), LegacyTime("t.c")])
def test_a_time_without_a_zone_is_a_mistake(column: UtcTime | LegacyTime) -> None:
    with pytest.raises(ValueError, match="without a zone"):
        column.process_bind_param(local("2026-07-01"), sqlite.dialect())


@pytest.mark.parametrize("column", [UtcTime(), LegacyTime("t.c")])
def test_another_zone_is_converted(column: UtcTime | LegacyTime) -> None:
    at = datetime(2026, 7, 1, 2, 0, tzinfo=timezone(timedelta(hours=2)))
    assert column.process_bind_param(at, sqlite.dialect()) == local("2026-07-01")


@pytest.mark.parametrize("value", [None, "0000-00-00 00:00:00"])
def test_a_zero_date_is_no_time(value: object) -> None:
    assert LegacyTime("t.c").process_result_value(value, mysql.dialect()) is None


def test_sqlite_has_a_clock_and_no_local_columns() -> None:
    with create_engine("sqlite://").connect() as connection:
        before = datetime.now(UTC)
        now = read_clock(connection)
        assert now.utcoffset() == timedelta(0)
        assert abs(now - before) < timedelta(minutes=1)
        assert find_local_columns(connection) == frozenset()
