"""`oma_epochs`: one row, how often a daemon has started on this database, and whether it is older than the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, exists, insert, not_, select, update
from sqlalchemy.engine import Connection, RowMapping

from database.tables import oma_epochs, oma_jobs, oma_sequences
from oma.domain.audit import AuditAction, AuditDraft
from oma.domain.epochs import FENCE_STRIDE, EpochState, Older, Witness, highest_number, name_uncertain
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event
from oma.domain.issues import DATABASE_OLDER, Issue
from oma.domain.jobs import Job
from oma.domain.states import JobState
from oma.domain.verdict import of_parked
from oma.store import actions, audit, issues, replications, unreadable
from oma.store.jobs import build_job
from oma.store.parking import Parking, park_job
from oma.store.sequences import EVENTS, FENCE, take_numbers
from oma.store.world_issues import open_world_issues

Build = Callable[[Job], Issue]
NAME: Final = "oma"
ACCEPTED: Final = "ACCEPTED"
"""How the issue about a restored database ends."""


def read_state(connection: Connection) -> EpochState:
    row = connection.execute(select(oma_epochs).where(oma_epochs.c.name == NAME)).mappings().first()
    written = _last_number(connection, EVENTS)
    active = [one.oma_vm_id for one in replications.list_configs(connection) if one.is_active and one.oma_vm_id]
    vm_ids = tuple(dict.fromkeys(active))
    if row is None:
        return EpochState(0, written, vm_ids)
    evidence = row["evidence"] or {}
    return EpochState(
        number=int(row["epoch"]),
        written=written,
        oma_vm_ids=vm_ids,
        older_since=row["older_since"],
        sentence=str(evidence.get("sentence") or ""),
        accepted=tuple(evidence.get("accepted", ())),
    )


def is_not_older() -> ColumnElement[bool]:
    """Whether jobs may be claimed, as a part of a query."""
    return not_(exists().where(oma_epochs.c.name == NAME, oma_epochs.c.older_since.is_not(None)))


def raise_epoch(connection: Connection, installation: str, owner: str, at: datetime) -> int:
    """The new epoch. Raises `database_older_than_world` where another daemon has found that meanwhile."""
    row = _lock(connection, at)
    if row["older_since"] is not None:
        raise build_older(row["evidence"] or {})
    number = int(row["epoch"]) + 1
    connection.execute(
        update(oma_epochs)
        .where(oma_epochs.c.name == NAME)
        .values(epoch=number, installation=installation, raised_by=owner, raised_at=at, updated_at=at)
    )
    return number


def mark_older(connection: Connection, older: Older, issue: Issue, at: datetime) -> tuple[str, list[Event]]:
    """From here on nothing is claimed, and everything in flight is parked under one issue, whose id is returned.

    Found again, it parks what has come into flight since. Without witnesses only this: where a person has accepted
    the restore meanwhile, nothing is done and no id returned.
    """
    row = _lock(connection, at)
    if row["older_since"] is None and not older.witnesses:
        return "", []
    in_flight = _lock_in_flight(connection)
    known = issues.list_open_of_kind(connection, DATABASE_OLDER) if row["older_since"] is not None else []
    if known:
        return known[0], _park_in_flight(connection, in_flight, issue, known[0], at)
    if row["older_since"] is None:
        evidence = {**older.as_json(), "sentence": older.sentence}
        values: dict[str, Any] = {"older_since": at, "evidence": evidence, "updated_at": at}
        connection.execute(update(oma_epochs).where(oma_epochs.c.name == NAME).values(**values))
        audit.append_audit(connection, [_audited(AuditAction.DATABASE_OLDER, "daemon", older.sentence, evidence, at)])
    (issue_id,), events = open_world_issues(connection, [issue], at)
    events += _park_in_flight(connection, in_flight, issue, issue_id, at)
    return issue_id, events


def accept_restore(
    connection: Connection, reason: str, actor: str, build: Callable[[Job], Issue], at: datetime
) -> tuple[int, int]:
    """A person has looked: the epochs go on above all that was seen. Returns the epoch, and how many runs stay parked.

    `build(job)` makes the issue by which each of the parked runs is settled. Raises `invalid_request` where the
    database is not known to be older.
    """
    row = _lock(connection, at)
    evidence = row["evidence"] or {}
    if row["older_since"] is None:
        raise OmaError(
            Code.INVALID_REQUEST,
            "This database is not known to be older than the world: there is nothing to accept.",
            next="Start the daemon on it first; it compares the epochs and says so.",
        )
    witnesses = [Witness(one["place"], one["epoch"], int(one["written"])) for one in evidence.get("witnesses", ())]
    number = highest_number(int(row["epoch"]), witnesses)
    take_numbers(connection, FENCE, FENCE_STRIDE)
    unseen = max((one.written for one in witnesses), default=0) - _last_number(connection, EVENTS)
    if unseen > 0:
        take_numbers(connection, EVENTS, unseen)
    kept = {"accepted": [one.text for one in witnesses], "reason": reason, "actor": actor, "sentence": ""}
    connection.execute(
        update(oma_epochs)
        .where(oma_epochs.c.name == NAME)
        .values(epoch=number, older_since=None, evidence=kept, updated_at=at)
    )
    parked = _settle_issue(connection, reason, actor, build, at)
    detail = {"epoch": number, "witnesses": [one.as_json() for one in witnesses], "parked": parked}
    audit.append_audit(connection, [_audited(AuditAction.RESTORE_ACCEPTED, actor, reason, detail, at)])
    return number, len(parked)


def build_older(evidence: dict[str, Any]) -> OmaError:
    sentence = str(evidence.get("sentence") or "The database is older than the world.")
    return OmaError(
        Code.DATABASE_OLDER_THAN_WORLD,
        f"{sentence} Nothing is recovered and no run is begun.",
        evidence={"witnesses": evidence.get("witnesses", [])},
        next='Look at what was done since the copy; then: oma db accept-restore --reason "…"',
    )


def _last_number(connection: Connection, name: str) -> int:
    return int(connection.execute(select(oma_sequences.c.value).where(oma_sequences.c.name == name)).scalar() or 0)


def _lock(connection: Connection, at: datetime) -> RowMapping:
    """The row, made where there is none, locked to the commit."""
    query = select(oma_epochs).where(oma_epochs.c.name == NAME).with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None:
        connection.execute(insert(oma_epochs).values(name=NAME, epoch=0, installation="", updated_at=at))
        row = connection.execute(query).mappings().one()
    return row


def _lock_in_flight(connection: Connection) -> list[tuple[str, int]]:
    """Queued and running ones alike, each with a fence above its own: whoever runs it has lost it.

    Their rows are locked before any sequence, as each run locks them; else one would wait for the other.
    """
    table = oma_jobs.c
    wanted = [JobState.QUEUED.value, JobState.RUNNING.value]
    query = select(table.id).where(table.state.in_(wanted)).order_by(table.created_at, table.id).with_for_update()
    job_ids = [str(one) for one in connection.execute(query).scalars()]
    if not job_ids:
        return []
    first = take_numbers(connection, FENCE, len(job_ids))
    return [(job_id, fence) for fence, job_id in enumerate(job_ids, first)]


def _park_in_flight(
    connection: Connection, in_flight: Sequence[tuple[str, int]], issue: Issue, issue_id: str, at: datetime
) -> list[Event]:
    """Whoever holds them: what they would go by is not how the world stands."""
    events: list[Event] = []
    for job_id, fence in in_flight:
        try:
            job = build_job(_read(connection, job_id))
            error = _build_error(connection, job, issue, issue_id)
        except unreadable.UNREADABLE as bad:
            events += _park_unreadable(connection, job_id, bad, at)
            continue
        parking = Parking(job.id, job.context_id, job.vm_name, job.requested_by, error)
        events += park_job(connection, parking, at, fence=fence)
    return events


def _build_error(connection: Connection, job: Job, issue: Issue, issue_id: str) -> dict[str, Any]:
    begun = actions.list_actions(connection, job.id)
    return {
        "code": Code.CLEANUP_FAILED.value,
        "detail": issue.title,
        "issue_id": issue_id,
        "issue_ids": [issue_id],
        "guidance": list(issue.guidance),
        "source_powered_off": job.plan.source_powered_off,
        **of_parked(job.plan, begun, (issue.kind,), job.id).as_json(),
    }


def _read(connection: Connection, job_id: str) -> RowMapping:
    """One row by itself, so that JSON that is none spoils no other's reading."""
    return connection.execute(select(oma_jobs).where(oma_jobs.c.id == job_id)).mappings().one()


def _park_unreadable(connection: Connection, job_id: str, bad: Exception, at: datetime) -> list[Event]:
    """Under an issue of its own, which is not settled with the common one."""
    problem = unreadable.find_problem(connection, job_id, bad, actions.build_action)
    return unreadable.park(connection, job_id, problem, at)


def _settle_issue(
    connection: Connection, reason: str, actor: str, build: Callable[[Job], Issue], at: datetime
) -> list[str]:
    """The one issue is closed, and each run that it has parked gets an issue of its own; returns those runs.

    One that can't be read is parked by that, whatever parked it before.
    """
    kinds = issues.list_open_of_kind(connection, DATABASE_OLDER)
    table = oma_jobs.c
    query = select(table.id).where(table.state == JobState.PARKED.value).order_by(table.created_at, table.id)
    parked: list[str] = []
    for job_id in connection.execute(query).scalars().all():
        try:
            row = _read(connection, job_id)
            if (row["error"] or {}).get("issue_id") not in kinds:
                continue
            issue = name_uncertain(build(build_job(row)), actions.list_actions(connection, job_id))
        except unreadable.UNREADABLE as bad:
            _park_unreadable(connection, job_id, bad, at)
            continue
        issues.open_issue(connection, issue, at)
        error = {**row["error"], "issue_id": issue.id, "issue_ids": [issue.id], "guidance": list(issue.guidance)}
        connection.execute(update(oma_jobs).where(table.id == job_id).values(error=error, updated_at=at))
        parked.append(str(job_id))
    for issue_id in kinds:
        issues.resolve(connection, issue_id, ACCEPTED, notes=reason, actor=actor, at=at)
    return parked


def _audited(action: AuditAction, actor: str, reason: str, detail: dict[str, Any], at: datetime) -> AuditDraft:
    decision = Code.DATABASE_OLDER_THAN_WORLD.value if action is AuditAction.DATABASE_OLDER else ACCEPTED.lower()
    return AuditDraft(at=at, actor=actor, action=action, decision=decision, vm_name="", reason=reason, detail=detail)
