"""Other daemons as their leases show them, and the end of the leases of one that is known to be dead."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import and_, select, update
from sqlalchemy.engine import Connection

from database.tables import oma_jobs
from database.times import read_clock
from oma.domain.states import JobState

LONG_OVER = timedelta(seconds=1)
"""So that a claim in the same moment finds it over, whatever a column's precision."""


def list_owners(connection: Connection) -> list[str]:
    """Whoever holds a lease that has not run out."""
    table = oma_jobs.c
    query = select(table.lease_owner).where(
        and_(table.state == JobState.RUNNING.value, table.lease_until >= read_clock(connection))
    )
    return sorted(set(connection.execute(query).scalars()) - {None})


def end_leases(connection: Connection, owner: str) -> int:
    """The owner's leases run out now; the jobs stay its own until somebody claims them."""
    table, now = oma_jobs.c, read_clock(connection)
    held = and_(table.lease_owner == owner, table.state == JobState.RUNNING.value, table.lease_until >= now)
    return connection.execute(update(oma_jobs).where(held).values(lease_until=now - LONG_OVER)).rowcount
