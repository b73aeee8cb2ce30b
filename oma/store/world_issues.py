"""Issues about the world alone: opened where a guard refuses, closed once a later plan no longer finds their cause."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from database.tables import oma_issues
from oma.domain.events import Event, EventType
from oma.domain.issues import MOOT, WORLD_KINDS, Issue
from oma.domain.states import IssueState, LogLevel
from oma.store import issues
from oma.store.events import Draft, record_events


def open_world_issues(
    connection: Connection, found: Sequence[Issue], at: datetime
) -> tuple[tuple[str, ...], list[Event]]:
    """The ids of the open issues, one per cause, and the events of those that are new."""
    ids: list[str] = []
    events: list[Event] = []
    for issue in found:
        known = issues.open_issue(connection, issue, at)
        ids.append(known)
        if known == issue.id:
            data = {
                "issue_id": known,
                "cause": issue.cause,
                "code": issue.code,
                "severity": issue.severity.value,
                "action_id": None,
            }
            draft = Draft(EventType.ISSUE_OPENED, f"Issue {known} opened: {issue.title}", data, level=LogLevel.ERROR)
            events += record_events(connection, None, issue.context_id, [draft], at)
    return tuple(ids), events


def close_world_issues(
    connection: Connection,
    context_id: str,
    kept: Collection[str],
    sentence: str,
    evidence: Mapping[str, Any],
    *,
    at: datetime,
) -> tuple[tuple[str, ...], list[Event]]:
    """Resolves those of this VM whose cause is not among the `kept` ones. Returns their ids and events."""
    table = oma_issues.c
    query = (
        select(table.id, table.cause, table.evidence)
        .where(
            table.context_id == context_id,
            table.state == IssueState.OPEN.value,
            table.kind.in_(sorted(WORLD_KINDS)),
        )
        .order_by(table.opened_at, table.id)
        .with_for_update()
    )
    moot = [row for row in connection.execute(query) if row.cause not in kept]
    for row in moot:
        connection.execute(
            update(oma_issues)
            .where(table.id == row.id)
            .values(
                state=IssueState.RESOLVED.value,
                open_cause=None,
                resolved_at=at,
                resolution=MOOT,
                notes=sentence,
                evidence={**(row.evidence or {}), "resolved_by": dict(evidence)},
                updated_at=at,
            )
        )
    drafts = [
        Draft(
            EventType.ISSUE_RESOLVED,
            f"Issue {row.id} resolved: {sentence}",
            {"issue_id": row.id, "cause": row.cause, "resolution": MOOT, "evidence": dict(evidence)},
        )
        for row in moot
    ]
    return tuple(row.id for row in moot), record_events(connection, None, context_id, drafts, at)
