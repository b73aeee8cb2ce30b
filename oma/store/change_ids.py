"""`cbt_history`: the change ids that replications stored for the disks of a VM."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Select, select
from sqlalchemy.engine import Connection

from database.tables import cbt_history
from oma.domain.records import ChangeIdRecord
from oma.store.batches import IDS, rows_for
from oma.store.doubts import Doubts, also

UNDATED: Final = datetime.max.replace(tzinfo=UTC)
"""A row without a time may be younger than any other."""


@cache
def _select(local: frozenset[str]) -> Select[Any]:
    table = cbt_history.c
    return select(
        table.id,
        table.job_id,
        table.disk_id,
        table.change_id,
        table.sync_type,
        table.created_at,
        *also(local, table.created_at),
    ).where(table.job_id.in_(IDS))


def list_change_ids(
    connection: Connection, context_of: Mapping[str, str], doubts: Doubts
) -> list[tuple[str, ChangeIdRecord]]:
    """What these replications stored, the newest first; `context_of` tells the context of each by its id.

    Asked by id, not joined: in existing installations the columns of the two tables may have different collations,
    which the server refuses to compare. `doubts` gets those of their times, by context.
    """
    rows = list(rows_for(connection, _select(doubts.local), context_of))
    # Collations may find ids equal that are not; only exact ones are this VM's.
    rows = [row for row in rows if row["job_id"] in context_of]
    rows.sort(key=lambda row: (row["created_at"] or UNDATED, row["id"]), reverse=True)
    for row in rows:
        doubts.note(context_of[row["job_id"]], "cbt_history", row, row["id"], "created_at")
    return [
        (
            context_of[row["job_id"]],
            ChangeIdRecord(
                disk_id=row["disk_id"] or "",
                change_id=row["change_id"] or None,
                sync_type=row["sync_type"] or "",
                stored_at=row["created_at"],
                job_id=row["job_id"],
            ),
        )
        for row in rows
    ]
