"""`oma_issues`: what only a person can settle."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_issues
from oma.domain.issues import WORLD_KINDS, Issue, Severity
from oma.domain.states import IssueState
from oma.store.batches import rows_for


def list_open(
    connection: Connection, *, job_id: str | None = None, context_id: str | None = None, locked: bool = False
) -> list[Issue]:
    """Oldest first. `locked`: as they stand now, and none changes before the commit."""
    table = oma_issues.c
    query = select(oma_issues).where(table.state == IssueState.OPEN.value).order_by(table.opened_at, table.id)
    if job_id is not None:
        query = query.where(table.job_id == job_id)
    if context_id is not None:
        query = query.where(table.context_id == context_id)
    if locked:
        query = query.with_for_update()
    return [build_issue(row) for row in connection.execute(query).mappings()]


def list_open_ids(
    connection: Connection, context_ids: Iterable[str], *, locked: bool = False
) -> list[tuple[str, str, str | None]]:
    """Context, issue and job of every open issue of these VMs that is to be settled before a run, oldest first."""
    rows = _open_rows(connection, context_ids, locked=locked)
    return [(row["context_id"], row["id"], row["job_id"]) for row in rows if row["kind"] not in WORLD_KINDS]


def list_open_by_kind(
    connection: Connection, context_ids: Iterable[str]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Context and issue of those that are to be settled before a run, and of those about the world alone."""
    rows = _open_rows(connection, context_ids)
    to_settle = [(row["context_id"], row["id"]) for row in rows if row["kind"] not in WORLD_KINDS]
    return to_settle, [(row["context_id"], row["id"]) for row in rows if row["kind"] in WORLD_KINDS]


def _open_rows(connection: Connection, context_ids: Iterable[str], *, locked: bool = False) -> list[RowMapping]:
    table = oma_issues.c
    query = (
        select(table.context_id, table.id, table.job_id, table.kind)
        .where(table.state == IssueState.OPEN.value)
        .order_by(table.opened_at, table.id)
    )
    if locked:
        query = query.with_for_update()
    return list(rows_for(connection, query, table.context_id, context_ids))


def open_issue(connection: Connection, issue: Issue, at: datetime) -> str:
    """Inserts it; an open one of the same cause keeps its id, age and owner and takes over the rest. Returns the id."""
    table = oma_issues.c
    query = select(table.id).where(table.open_cause == issue.cause).with_for_update()
    known = connection.execute(query).scalar()
    current = {
        "job_id": issue.job_id,
        "action_id": issue.action_id,
        "context_id": issue.context_id,
        "vm_name": issue.vm_name,
        "kind": issue.kind,
        "code": issue.code,
        "severity": issue.severity.value,
        "title": issue.title,
        "target": issue.target,
        "evidence": issue.evidence,
        "error": issue.error,
        "guidance": list(issue.guidance),
        "updated_at": at,
    }
    if known is not None:
        connection.execute(update(oma_issues).where(table.id == known).values(**current))
        return str(known)
    connection.execute(
        insert(oma_issues).values(
            id=issue.id,
            cause=issue.cause,
            open_cause=issue.cause if issue.state is IssueState.OPEN else None,
            state=issue.state.value,
            opened_at=issue.opened_at,
            due_at=issue.due_at,
            owner=issue.owner,
            resolved_at=issue.resolved_at,
            resolution=issue.resolution,
            notes=issue.notes,
            actor=issue.actor,
            **current,
        )
    )
    return issue.id


def build_issue(row: RowMapping) -> Issue:
    guidance: list[Any] = row["guidance"] or []
    return Issue(
        id=row["id"],
        cause=row["cause"],
        job_id=row["job_id"],
        action_id=row["action_id"],
        context_id=row["context_id"],
        vm_name=row["vm_name"],
        kind=row["kind"],
        code=row["code"],
        severity=Severity(row["severity"]),
        state=IssueState(row["state"]),
        title=row["title"],
        target=row["target"] or {},
        evidence=row["evidence"] or {},
        error=row["error"],
        guidance=tuple(guidance),
        opened_at=row["opened_at"],
        due_at=row["due_at"],
        owner=row["owner"],
        resolved_at=row["resolved_at"],
        resolution=row["resolution"],
        notes=row["notes"],
        actor=row["actor"],
    )
