"""What is looked for after a COMMIT whose answer was lost: all that was to be written, not only a row of that id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Connection, create_engine, text

from database.tables import metadata
from tests.unit.volume_daemon.builders import NOW, OMA_ID, OPERATION_ID, VOLUME_ID
from volume_daemon.holders.ended import EndedTree, EndOutcome
from volume_daemon.holders.report import ProcessId
from volume_daemon.models import OperationType
from volume_daemon.server import endings, journal, revoking
from volume_daemon.server.endings import EndOrder
from volume_daemon.server.records import Order

ORDER = Order(OPERATION_ID, OperationType.ATTACH, VOLUME_ID, OMA_ID, {"vm_id": OMA_ID}, 3)
HOLDER = ProcessId(17, 4)
END = EndOrder(OPERATION_ID, VOLUME_ID, (HOLDER,), "it hangs", 3)


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as opened:
        metadata.create_all(opened)
        yield opened
    engine.dispose()


def forget_the_fence(connection: Connection) -> None:
    """As if the transaction that raised it had been rolled back."""
    connection.execute(text("UPDATE volume_daemon_fences SET fence = 2"))


def test_an_order_is_confirmed_with_its_fence(connection: Connection):
    """Else the fence is raised in memory alone, and a restart lets an older holder in."""
    journal.accept(connection, ORDER, NOW)
    assert journal.is_accepted(connection, ORDER)
    newer = replace(ORDER, fence=4)
    assert not journal.is_accepted(connection, newer)
    journal.raise_fence(connection, VOLUME_ID, 4, NOW)
    assert not journal.is_accepted(connection, newer), "the operation itself still carries the older one"
    journal.accept(connection, newer, NOW)
    assert journal.is_accepted(connection, newer)
    forget_the_fence(connection)
    assert not journal.is_accepted(connection, newer)


def test_an_order_that_was_taken_back_is_confirmed_with_its_fence(connection: Connection):
    revoking.revoke(connection, ORDER, NOW)
    assert revoking.is_revoked(connection, ORDER)
    forget_the_fence(connection)
    assert not revoking.is_revoked(connection, ORDER)


def test_process_trees_are_confirmed_as_they_are_to_be_ended(connection: Connection):
    """A repeat finds new trees under the same id; what gets a signal must be what is journaled (6-safety 3)."""
    trees = [{"asked": HOLDER.as_json(), "members": [HOLDER.as_json()]}]
    others = [{"asked": HOLDER.as_json(), "members": [HOLDER.as_json(), ProcessId(18, 5).as_json()]}]
    endings.save_intent(connection, END, trees, NOW)
    assert endings.is_intended(connection, END, trees)
    assert not endings.is_intended(connection, END, others)
    endings.save_intent(connection, END, others, NOW)
    assert endings.is_intended(connection, END, others)
    forget_the_fence(connection)
    assert not endings.is_intended(connection, END, others)


def test_an_outcome_is_confirmed_by_what_it_says(connection: Connection):
    survived = (EndedTree(HOLDER, EndOutcome.SURVIVED, "sh"),)
    gone = (EndedTree(HOLDER, EndOutcome.GONE, "sh"),)
    endings.save_intent(connection, END, [], NOW)
    assert not endings.has_outcome(connection, END, survived)
    endings.save_outcome(connection, END, survived, NOW)
    assert endings.has_outcome(connection, END, survived)
    assert not endings.has_outcome(connection, END, gone)
