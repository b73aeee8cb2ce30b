"""`oma_issues`: what only a person can settle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import and_, bindparam, case, insert, or_, select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_issues
from oma.domain.issues import SELF_CLOSING_KINDS, WORLD_KINDS, Issue, Severity
from oma.domain.states import IssueState
from oma.ports import IssueFilter, Page
from oma.store.batches import IDS, rows_for
from oma.store.cursors import build_page, decode_cursor, decode_time, encode_cursor

LIST_NAME = "issues"

_OPEN_ROWS: Final = (
    select(oma_issues.c.context_id, oma_issues.c.id, oma_issues.c.job_id, oma_issues.c.kind)
    .where(oma_issues.c.state == IssueState.OPEN.value, oma_issues.c.context_id.in_(IDS))
    .order_by(oma_issues.c.opened_at, oma_issues.c.id)
)
_OPEN_ROWS_LOCKED: Final = _OPEN_ROWS.with_for_update()
_OF_CAUSE: Final = select(oma_issues.c.id).where(oma_issues.c.open_cause == bindparam("cause")).with_for_update()
_CHANGE: Final = update(oma_issues).where(oma_issues.c.id == bindparam("the_id"))
_INSERT: Final = insert(oma_issues)


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
    return [(row["context_id"], row["id"], row["job_id"]) for row in rows if row["kind"] not in SELF_CLOSING_KINDS]


def list_open_by_kind(
    connection: Connection, context_ids: Iterable[str]
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Context and issue of those that are to be settled before a run, and of those about the world alone."""
    rows = _open_rows(connection, context_ids)
    to_settle = [(row["context_id"], row["id"]) for row in rows if row["kind"] not in SELF_CLOSING_KINDS]
    return to_settle, [(row["context_id"], row["id"]) for row in rows if row["kind"] in WORLD_KINDS]


def _open_rows(connection: Connection, context_ids: Iterable[str], *, locked: bool = False) -> list[RowMapping]:
    return list(rows_for(connection, _OPEN_ROWS_LOCKED if locked else _OPEN_ROWS, context_ids))


def find_issue(connection: Connection, issue_id: str) -> Issue | None:
    """Code point by code point, whatever the collation finds equal."""
    rows = connection.execute(select(oma_issues).where(oma_issues.c.id == issue_id)).mappings()
    return next((build_issue(row) for row in rows if row["id"] == issue_id), None)


def find_next(connection: Connection) -> Issue | None:
    """The open one that is to be settled first."""
    table = oma_issues.c
    urgency = case({one.value: place for place, one in enumerate(Severity)}, value=table.severity, else_=len(Severity))
    query = (
        select(oma_issues)
        .where(table.state == IssueState.OPEN.value)
        .order_by(urgency, table.due_at, table.opened_at, table.id)
        .limit(1)
    )
    row = connection.execute(query).mappings().first()
    return None if row is None else build_issue(row)


def list_page(connection: Connection, where: IssueFilter, limit: int, cursor: str | None) -> Page[Issue]:
    """Newest first."""
    table = oma_issues.c
    query = select(oma_issues).order_by(table.opened_at.desc(), table.id.desc()).limit(limit + 1)
    equal = (
        (table.state, where.state),
        (table.vm_name, where.vm),
        (table.context_id, where.context_id),
        (table.job_id, where.job_id),
        (table.severity, where.severity),
        (table.kind, where.kind),
    )
    for column, value in equal:
        if value is not None:
            query = query.where(column == value)
    if where.q:
        query = query.where(table.title.icontains(where.q, autoescape=True))
    if cursor is not None:
        text, issue_id = decode_cursor(LIST_NAME, cursor, (str, str))
        at = decode_time(text)
        query = query.where(or_(table.opened_at < at, and_(table.opened_at == at, table.id < issue_id)))
    rows = [build_issue(row) for row in connection.execute(query).mappings()]
    return build_page(rows, limit, lambda issue: encode_cursor(LIST_NAME, issue.opened_at.isoformat(), issue.id))


def open_issue(connection: Connection, issue: Issue, at: datetime) -> str:
    """Inserts it; an open one of the same cause keeps its id, age and owner and takes over the rest. Returns the id."""
    known = connection.execute(_OF_CAUSE, {"cause": issue.cause}).scalar()
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
        connection.execute(_CHANGE, {"the_id": known, **current})
        return str(known)
    values = {
        "id": issue.id,
        "cause": issue.cause,
        "open_cause": issue.cause if issue.state is IssueState.OPEN else None,
        "state": issue.state.value,
        "opened_at": issue.opened_at,
        "due_at": issue.due_at,
        "owner": issue.owner,
        "resolved_at": issue.resolved_at,
        "resolution": issue.resolution,
        "notes": issue.notes,
        "actor": issue.actor,
    }
    connection.execute(_INSERT, {**values, **current})
    return issue.id


def list_open_of_kind(connection: Connection, kind: str) -> list[str]:
    """Their ids, locked to the commit."""
    table = oma_issues.c
    query = select(table.id).where(table.kind == kind, table.state == IssueState.OPEN.value).with_for_update()
    return [str(one) for one in connection.execute(query).scalars()]


def resolve(
    connection: Connection,
    issue_id: str,
    resolution: str,
    *,
    notes: str | None,
    actor: str | None,
    at: datetime,
    evidence: Mapping[str, Any] | None = None,
) -> None:
    """An open one. `evidence`: all of it, where it is to change."""
    ended: dict[str, Any] = {"state": IssueState.RESOLVED.value, "open_cause": None}
    ended |= {"resolved_at": at, "resolution": resolution}
    if evidence is not None:
        ended["evidence"] = dict(evidence)
    connection.execute(
        update(oma_issues)
        .where(and_(oma_issues.c.id == issue_id, oma_issues.c.open_cause.is_not(None)))
        .values(**ended, notes=notes, actor=actor, updated_at=at)
    )


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
