"""`oma_sequences`: numbers that grow in the order of the commits.

The row stays locked to the commit, so that nobody is given a later number and commits before.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import Connection

from database.tables import oma_sequences
from database.times import MYSQL_DIALECTS

EVENTS = "events"
FENCE = "fence"
AUDIT = "audit"


def take_numbers(connection: Connection, name: str, count: int = 1) -> int:
    """The first of `count` numbers in a row; the first ever is 1."""
    value = oma_sequences.c.value
    if connection.dialect.name in MYSQL_DIALECTS:
        connection.execute(
            mysql.insert(oma_sequences)
            .values(name=name, value=count)
            .on_duplicate_key_update(value=oma_sequences.c.value + count)
        )
    else:
        connection.execute(
            sqlite.insert(oma_sequences)
            .values(name=name, value=count)
            .on_conflict_do_update(index_elements=["name"], set_={"value": value + count})
        )
    # A locking read: a plain one may answer from a snapshot that is older than the lock.
    query = select(value).where(oma_sequences.c.name == name).with_for_update()
    last = connection.execute(query).scalar_one()
    return int(last) - count + 1
