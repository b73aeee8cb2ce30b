"""Issues about the world alone: opened where a guard refuses, closed once a later plan no longer finds their cause."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection, RowMapping

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
        select(table.id, table.cause, table.context_id, table.evidence)
        .where(
            table.context_id == context_id,
            table.state == IssueState.OPEN.value,
            table.kind.in_(sorted(WORLD_KINDS)),
        )
        .order_by(table.opened_at, table.id)
        .with_for_update()
    )
    moot = [row for row in connection.execute(query).mappings() if row["cause"] not in kept]
    return tuple(row["id"] for row in moot), resolve_moot(connection, moot, sentence, evidence, at)


def resolve_moot(
    connection: Connection, moot: Sequence[RowMapping], sentence: str, evidence: Mapping[str, Any], at: datetime
) -> list[Event]:
    """Issues whose cause is gone; each row has `id`, `cause`, `context_id` and `evidence`. Returns their events."""
    events: list[Event] = []
    for row in moot:
        found = {**(row["evidence"] or {}), "resolved_by": dict(evidence)}
        issues.resolve(connection, row["id"], MOOT, notes=sentence, actor=None, at=at, evidence=found)
        draft = Draft(
            EventType.ISSUE_RESOLVED,
            f"Issue {row['id']} resolved: {sentence}",
            {"issue_id": row["id"], "cause": row["cause"], "resolution": MOOT, "evidence": dict(evidence)},
        )
        events += record_events(connection, None, row["context_id"], [draft], at)
    return events
