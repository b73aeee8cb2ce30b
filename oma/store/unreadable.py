"""Rows that no value can be made of: unknown words, JSON that is none, fields that are missing.

A run with such a row is parked by whoever would have claimed it, with an issue that names the row, and nobody else
waits for it. A list leaves it out; whoever asks for it by its id is told what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import NAMESPACE_OID, uuid5

from sqlalchemy import Select, Table, select
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_actions, oma_jobs
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event, EventType
from oma.domain.guidance import FOR_GOOD
from oma.domain.issues import UNBELIEVABLE, Issue, Severity, due_time
from oma.domain.states import IssueState, LogLevel, Replica
from oma.store import issues
from oma.store.events import Draft
from oma.store.parking import Parking, park_job

T = TypeVar("T")
UNREADABLE: Final = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""What building a value from such a row raises; JSON that is none is a `ValueError`, an unknown word too.

A number beyond all others and a day after the last one are `ArithmeticError`s, JSON that is too deep a
`RecursionError`.
"""

SAY_READABLE: Final = (
    '3. Then say that it can be read, and the run goes on: oma audit fix -c {issue_id} --resolution APPLIED --notes "…"'
)


def build_readable(
    connection: Connection, query: Select[Any], table: Table, build: Callable[[RowMapping], T]
) -> list[T]:
    """Those of the query's rows that a value can be made of, in its order."""
    try:
        return [build(row) for row in connection.execute(query).mappings()]
    except UNREADABLE:
        return [one for one in _one_by_one(connection, query, table, build) if one is not None]


def _one_by_one(
    connection: Connection, query: Select[Any], table: Table, build: Callable[[RowMapping], T]
) -> list[T | None]:
    ids = connection.execute(query.with_only_columns(table.c.id)).scalars().all()
    found: list[T | None] = []
    for one in ids:
        try:
            found.append(build(connection.execute(select(table).where(table.c.id == one)).mappings().one()))
        except UNREADABLE:
            found.append(None)
    return found


def told(what: str, error: Exception) -> OmaError:
    """For whoever asked for exactly this."""
    sentence = f"The journal of {what} makes no sense ({_words(error)}); its issue says what to do."
    return OmaError(Code.INTERNAL_ERROR, sentence, next="Read the issue: oma issue list")


def require_storable(value: object) -> None:
    """Raises one of `UNREADABLE` where JSON that was read can't be written again: `1e999` is read as infinite."""
    json.dumps(value, allow_nan=False)


def find_problem(
    connection: Connection, job_id: str, error: Exception, build_action: Callable[[RowMapping], object]
) -> str:
    """Which row it is, and what is wrong with it."""
    query = select(oma_actions.c.id, oma_actions.c.kind, oma_actions.c.state).where(oma_actions.c.job_id == job_id)
    for action_id, kind, state in connection.execute(query.order_by(oma_actions.c.seq)):
        try:
            build_action(connection.execute(select(oma_actions).where(oma_actions.c.id == action_id)).mappings().one())
        except UNREADABLE as bad:
            return f"the action {action_id} ({kind}, {state}) in oma_actions: {_words(bad)}"
    return f"the rows of the run {job_id}: {_words(error)}"


def park(connection: Connection, job_id: str, problem: str, at: datetime) -> list[Event]:
    """The job stands still with an issue, whatever its rows say; only columns that are plain text are read of it."""
    columns = (oma_jobs.c.context_id, oma_jobs.c.vm_name, oma_jobs.c.requested_by)
    row = connection.execute(select(*columns).where(oma_jobs.c.id == job_id)).mappings().one()
    sentence = f"The journal of the clean-up of {row['vm_name']} can't be read: {problem}. Nothing was done."
    issue = _build_issue(job_id, row, sentence, problem, at)
    issue_id = issues.open_issue(connection, issue, at)
    error = {
        "code": Code.CLEANUP_FAILED.value,
        "detail": sentence,
        "issue_id": issue_id,
        "issue_ids": [issue_id],
        "guidance": list(issue.guidance),
        "replica": Replica.UNKNOWN.value,
        "next": f"Don't fail over {row['vm_name']} before you settle the open issue: oma issue get -c {issue_id}",
    }
    data = {"issue_id": issue_id, "cause": issue.cause, "code": issue.code, "severity": issue.severity.value}
    opened = Draft(EventType.ISSUE_OPENED, sentence, data, level=LogLevel.ERROR)
    parking = Parking(job_id, row["context_id"], row["vm_name"], row["requested_by"], error)
    return park_job(connection, parking, at, before=[opened])


def _build_issue(job_id: str, row: RowMapping, sentence: str, problem: str, at: datetime) -> Issue:
    issue_id = str(uuid5(NAMESPACE_OID, f"{job_id}/{at.isoformat()}"))
    return Issue(
        id=issue_id,
        cause=f"unreadable:{job_id}",
        job_id=job_id,
        action_id=None,
        context_id=row["context_id"],
        vm_name=row["vm_name"],
        kind=UNBELIEVABLE,
        code=Code.CLEANUP_FAILED.value,
        severity=Severity.CRITICAL,
        state=IssueState.OPEN,
        title=sentence,
        target={},
        evidence={"problem": problem, "unknown": True},
        error=None,
        guidance=(
            "1. Do not attach or start anything on this VM's volumes: what was done to them can't be told.",
            "2. Put the row right, or restore a database that is whole: oma db check",
            SAY_READABLE.format(issue_id=issue_id),
            f'4. {FOR_GOOD}: oma audit fix -c {issue_id} --resolution RESYNC --notes "…"',
        ),
        opened_at=at,
        due_at=due_time(Severity.CRITICAL, at),
    )


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
