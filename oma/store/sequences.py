"""`oma_sequences`: numbers that grow in the order of the commits.

The row stays locked to the commit, so that nobody is given a later number and commits before.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, String, bindparam, select
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import Connection

from database.tables import oma_sequences
from database.times import MYSQL_DIALECTS

EVENTS = "events"
FENCE = "fence"
AUDIT = "audit"


# Every write takes numbers, so these statements are built once.
_NAME: Final = bindparam("the_name", type_=String)
_COUNT: Final = bindparam("the_count", type_=BigInteger)
_VALUE = oma_sequences.c.value
_MYSQL_RAISE: Final = (
    mysql.insert(oma_sequences).values(name=_NAME, value=_COUNT).on_duplicate_key_update(value=_VALUE + _COUNT)
)
_SQLITE_RAISE: Final = (
    sqlite.insert(oma_sequences)
    .values(name=_NAME, value=_COUNT)
    .on_conflict_do_update(index_elements=["name"], set_={"value": _VALUE + _COUNT})
    .returning(_VALUE)
)
_READ: Final = select(_VALUE).where(oma_sequences.c.name == _NAME).with_for_update()


def take_numbers(connection: Connection, name: str, count: int = 1) -> int:
    """The first of `count` numbers in a row; the first ever is 1."""
    wanted = {"the_name": name, "the_count": count}
    if connection.dialect.name in MYSQL_DIALECTS:
        connection.execute(_MYSQL_RAISE, wanted)
        # A locking read: a plain one may answer from a snapshot that is older than the lock.
        last = connection.execute(_READ, {"the_name": name}).scalar_one()
    else:
        last = connection.execute(_SQLITE_RAISE, wanted).scalar_one()
    return int(last) - count + 1
