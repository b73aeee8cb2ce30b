"""`oma_volume_claims`: one active job per volume."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.engine import Connection

from database.tables import oma_volume_claims
from oma.store.batches import rows_for


def find_claimants(connection: Connection, volume_ids: Iterable[str]) -> dict[str, str]:
    """Volume → the job that holds it now."""
    table = oma_volume_claims.c
    query = select(table.volume_id, table.job_id).with_for_update()
    return {row["volume_id"]: row["job_id"] for row in rows_for(connection, query, table.volume_id, volume_ids)}


def claim_volumes(
    connection: Connection, job_id: str, context_id: str, volume_ids: Iterable[str], at: datetime
) -> None:
    """The primary key keeps a second claim out, whoever looked first."""
    rows = [
        {"volume_id": volume_id, "job_id": job_id, "context_id": context_id, "claimed_at": at}
        for volume_id in volume_ids
    ]
    if rows:
        connection.execute(insert(oma_volume_claims), rows)


def free_volumes(connection: Connection, job_id: str) -> None:
    connection.execute(delete(oma_volume_claims).where(oma_volume_claims.c.job_id == job_id))
