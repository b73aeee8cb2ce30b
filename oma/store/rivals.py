"""Failovers of other VMs that may have named a test VM alike: their names may be the same once sanitised."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from datetime import timedelta
from operator import itemgetter
from typing import Final

from sqlalchemy import select
from sqlalchemy.engine import Connection

from database.tables import failover_jobs, vm_replication_contexts
from oma.domain.records import FailoverRecord, RivalFailover

AROUND: Final = timedelta(hours=2)
"""So far around the failover others are read: its own time and theirs may each be an hour off where clocks change."""


def list_rivals(connection: Connection, failovers: Iterable[FailoverRecord]) -> Iterator[tuple[str, RivalFailover]]:
    """With the context of each newest failover whose test VM is known by name alone; no statement where there is none.

    `failovers` are newest first. One query for all: the table holds a row per failover ever made, which is few.
    """
    newest: dict[str, FailoverRecord] = {}
    for failover in failovers:
        newest.setdefault(failover.context_id or "", failover)
    judged = sorted(
        (one.created_at, context_id)
        for context_id, one in newest.items()
        if one.is_open and one.job_type == "test" and not one.destination_vm_id and one.created_at is not None
    )
    if not judged:
        return
    table, contexts = failover_jobs.c, vm_replication_contexts.c
    query = (
        select(table.vm_context_id, table.created_at, table.destination_vm_id, table.source_vm_name, contexts.vm_name)
        .join_from(failover_jobs, vm_replication_contexts, contexts.context_id == table.vm_context_id, isouter=True)
        .where(table.created_at.between(judged[0][0] - AROUND, judged[-1][0] + AROUND))
        .order_by(table.id)
    )
    for row in connection.execute(query).all():
        name = row.vm_name or row.source_vm_name
        if not name or row.created_at is None:
            continue
        first = bisect_left(judged, row.created_at - AROUND, key=itemgetter(0))
        last = bisect_right(judged, row.created_at + AROUND, key=itemgetter(0))
        for _, context_id in judged[first:last]:
            if row.vm_context_id != context_id:
                yield context_id, RivalFailover(name, row.destination_vm_id or None)
