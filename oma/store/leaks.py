"""`oma_leaks`: what `force` passed and left behind."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, insert, select
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_leaks
from oma.domain.events import EventType
from oma.domain.leaks import Leak, LeakKind, LeakState
from oma.domain.states import LogLevel
from oma.store import jobs
from oma.store.batches import group, rows_for
from oma.store.events import Draft


def track_leak(connection: Connection, leak: Leak, at: datetime) -> None:
    connection.execute(
        insert(oma_leaks).values(
            id=leak.id,
            context_id=leak.context_id,
            vm_name=leak.vm_name,
            job_id=leak.job_id,
            kind=leak.kind.value,
            target=leak.target,
            sentence=leak.sentence,
            reason=leak.reason,
            since=leak.since,
            state=leak.state.value,
            updated_at=at,
        )
    )


def build_draft(leak: Leak, sentence: str) -> Draft:
    data = {"leak_id": leak.id, "kind": leak.kind.value, "target": leak.target, "reason": leak.reason}
    return Draft(EventType.LEAK_TRACKED, sentence, data, level=LogLevel.WARN)


def list_leaks(connection: Connection, *, context_id: str | None = None, job_id: str | None = None) -> list[Leak]:
    """Open ones, oldest first."""
    table = oma_leaks.c
    query = select(oma_leaks).where(table.state == LeakState.OPEN.value).order_by(table.since, table.id)
    if context_id is not None:
        query = query.where(table.context_id == context_id)
    if job_id is not None:
        query = query.where(table.job_id == job_id)
    return [build_leak(row) for row in connection.execute(query).mappings()]


def _select_of_partial_runs() -> Select[Any]:
    table, partial = oma_leaks.c, jobs.select_partial().subquery("partial")
    return (
        select(oma_leaks)
        .join_from(partial, oma_leaks, table.job_id == partial.c.id)
        # A marker goes with the next run.
        .where(table.state == LeakState.OPEN.value, table.kind != LeakKind.MARKER_KEPT.value)
        .order_by(table.since, table.id)
    )


_OF_PARTIAL_RUNS: Final = _select_of_partial_runs()


def list_of_partial_runs(connection: Connection, context_ids: Iterable[str]) -> dict[str, list[Leak]]:
    """Context → the open leaks of its partial runs since its last complete one, oldest first."""
    found = [build_leak(row) for row in rows_for(connection, _OF_PARTIAL_RUNS, context_ids)]
    return group(found, lambda leak: leak.context_id)


def build_leak(row: RowMapping) -> Leak:
    return Leak(
        id=row["id"],
        context_id=row["context_id"],
        vm_name=row["vm_name"],
        job_id=row["job_id"],
        kind=LeakKind(row["kind"]),
        target=row["target"] or {},
        sentence=row["sentence"],
        reason=row["reason"],
        since=row["since"],
        state=LeakState(row["state"]),
    )
