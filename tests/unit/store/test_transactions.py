from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from database.errors import DatabaseUnavailable, SchemaOutdated
from oma.domain.changes import Change
from oma.domain.errors import Code, OmaError
from oma.domain.jobs import Lease
from oma.store import SqlInventory, SqlJobReader, SqlJournalStore
from oma.store.applying import HANDLERS


class ClosedDoor:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def read(self, fn: Callable[[Any], Any]) -> Any:
        raise self.error

    async def write(self, fn: Callable[[Any], Any], *, confirm: Callable[[Any], bool] | None = None) -> Any:
        raise self.error

    async def check(self) -> str:
        raise self.error


async def test_a_closed_door_is_one_error_wherever_it_is_met() -> None:
    door = ClosedDoor(DatabaseUnavailable("connection refused", disk_full=False))
    lease = Lease("job", "oma-1", 1)
    for ask in (
        lambda: SqlInventory(door).find_context("x"),
        lambda: SqlJobReader(door).find_job("x"),
        lambda: SqlJobReader(door).check(),
        lambda: SqlJournalStore(door).claim_job("oma-1", 30),
        lambda: SqlJournalStore(door).apply(lease, [], None),  # type: ignore[arg-type]
    ):
        with pytest.raises(OmaError) as raised:
            await ask()
        assert raised.value.code is Code.DATABASE_UNAVAILABLE
        assert "connection refused" in raised.value.sentence
        assert raised.value.fields["disk_full"] is False


async def test_a_full_disk_says_so() -> None:
    door = ClosedDoor(DatabaseUnavailable("database or disk is full", disk_full=True))

    with pytest.raises(OmaError) as raised:
        await SqlJournalStore(door).claim_job("oma-1", 30)

    assert raised.value.code is Code.DATABASE_UNAVAILABLE
    assert "disk is full" in raised.value.sentence
    assert raised.value.fields["disk_full"] is True


async def test_a_schema_that_does_not_fit_says_what_to_do() -> None:
    door = ClosedDoor(SchemaOutdated("run `oma db upgrade`"))

    with pytest.raises(OmaError) as raised:
        await SqlJobReader(door).find_job("x")

    assert raised.value.code is Code.DATABASE_UNAVAILABLE
    assert "oma db upgrade" in raised.value.sentence


async def test_an_unknown_outcome_is_not_passed_off_as_nothing_written() -> None:
    door = ClosedDoor(DatabaseUnavailable("the connection broke while committing", outcome_unknown=True))

    with pytest.raises(OmaError) as raised:
        await SqlJournalStore(door).claim_job("oma-1", 30)

    assert raised.value.fields["outcome_unknown"] is True


async def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError):
        await SqlInventory(ClosedDoor(RuntimeError("a bug"))).find_context("x")


def test_every_kind_of_change_has_a_handler() -> None:
    assert set(HANDLERS) == set(Change.__args__)
