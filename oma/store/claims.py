"""`oma_volume_claims`: one active job per volume."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.engine import Connection

from database.tables import oma_volume_claims
from oma.store.batches import IDS, rows_for

_CLAIMANTS: Final = (
    select(oma_volume_claims.c.volume_id, oma_volume_claims.c.job_id)
    .where(oma_volume_claims.c.volume_id.in_(IDS))
    .with_for_update()
)
_CLAIMED: Final = (
    select(oma_volume_claims.c.volume_id)
    .where(oma_volume_claims.c.job_id == bindparam("job"))
    .order_by(oma_volume_claims.c.volume_id)
)
_CLAIM: Final = insert(oma_volume_claims)
_FREE: Final = delete(oma_volume_claims).where(oma_volume_claims.c.job_id == bindparam("job"))


def find_claimants(connection: Connection, volume_ids: Iterable[str]) -> dict[str, str]:
    """Volume → the job that holds it now."""
    return {row["volume_id"]: row["job_id"] for row in rows_for(connection, _CLAIMANTS, volume_ids)}


def claim_volumes(
    connection: Connection, job_id: str, context_id: str, volume_ids: Iterable[str], at: datetime
) -> None:
    """The primary key keeps a second claim out, whoever looked first."""
    rows = [
        {"volume_id": volume_id, "job_id": job_id, "context_id": context_id, "claimed_at": at}
        for volume_id in volume_ids
    ]
    if rows:
        connection.execute(_CLAIM, rows)


def list_claimed(connection: Connection, job_id: str) -> tuple[str, ...]:
    return tuple(connection.execute(_CLAIMED, {"job": job_id}).scalars())


def free_volumes(connection: Connection, job_id: str) -> None:
    connection.execute(_FREE, {"job": job_id})
