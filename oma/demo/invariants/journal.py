"""The journal as the checker reads it: jobs, actions with every id that they travelled under, events, issues, leaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeVar

from sqlalchemy import Table, select
from sqlalchemy.engine import Connection

from database.tables import (
    device_mappings,
    failover_jobs,
    oma_actions,
    oma_events,
    oma_issues,
    oma_jobs,
    oma_leaks,
    ossea_volumes,
    vm_disks,
    vm_replication_contexts,
)
from oma.domain.actions import Action, ActionKind, build_request_id
from oma.domain.events import EventType
from oma.domain.jobs import Job
from oma.store.actions import build_action
from oma.store.jobs import build_job

Row = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sent:
    """What an id stands for: which attempt of which action."""

    action_id: str
    attempt: int


@dataclass(frozen=True)
class Journal:
    jobs: Mapping[str, Job]
    """Oldest first."""
    actions: Mapping[str, Action]
    """By their own id."""
    events: Sequence[Row]
    issues: Sequence[Row]
    leaks: Sequence[Row]
    contexts: Mapping[str, Row]
    volumes: Sequence[Row]
    disks: Sequence[Row]
    failovers: Sequence[Row]
    mappings: Sequence[Row]
    unreadable: Sequence[Row] = ()
    """Rows of runs that make no sense: nothing but their park is judged."""

    @cached_property
    def ids(self) -> Mapping[str, Sent]:
        """Every id under which a call may have been sent; the Volume Daemon asks under those that it was given."""
        return {
            build_request_id(action.id, action.kind, attempt): Sent(action.id, attempt)
            for action in self.actions.values()
            for attempt in range(1, action.attempt + 1)
        }

    @cached_property
    def begun(self) -> Mapping[Sent, Row]:
        """Attempt of an action → the event with which its intent was committed first."""
        found: dict[Sent, Row] = {}
        for row in self.events:
            if row["type"] == EventType.ACTION_STARTED.value:
                found.setdefault(Sent(row["data"]["action_id"], row["data"].get("attempt", 1)), row)
        return found

    def find_action(self, request_id: str) -> Action | None:
        sent = self.ids.get(request_id)
        return self.actions[sent.action_id] if sent is not None else None

    def actions_of(self, job_id: str, *kinds: ActionKind) -> list[Action]:
        return [one for one in self.actions.values() if one.job_id == job_id and (not kinds or one.kind in kinds)]

    def jobs_of(self, context_id: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.context_id == context_id]

    def open_issues(self, job_id: str | None) -> list[Row]:
        """None: those that are about no run."""
        return [row for row in self.issues if row["job_id"] == job_id and row["state"] == "open"]

    def open_leaks(self, context_id: str) -> list[Row]:
        return [row for row in self.leaks if row["context_id"] == context_id and row["state"] == "open"]


TABLES: Final = (
    oma_jobs,
    oma_actions,
    oma_events,
    oma_issues,
    oma_leaks,
    vm_replication_contexts,
    ossea_volumes,
    vm_disks,
    failover_jobs,
    device_mappings,
)
"""What is read of the database."""


def build_journal(rows: Mapping[Table, Sequence[Any]]) -> Journal:
    """`rows`: all of each of `TABLES`, in any order."""
    events = sorted(rows[oma_events], key=lambda row: int(row["seq"]))
    # A clock may have been set back between two of them: what was written first came first.
    queued = {row["job_id"]: at for at, row in enumerate(events) if row["type"] == EventType.JOB_QUEUED.value}
    jobs = sorted(
        _readable(build_job, rows[oma_jobs]), key=lambda job: (queued.get(job.id, -1), job.created_at, job.id)
    )
    known = {job.id for job in jobs}
    actions = sorted(_readable(build_action, rows[oma_actions]), key=lambda action: (action.job_id, action.seq))
    return Journal(
        jobs={job.id: job for job in jobs},
        actions={action.id: action for action in actions if action.job_id in known},
        events=events,
        issues=rows[oma_issues],
        leaks=rows[oma_leaks],
        contexts={row["context_id"]: row for row in rows[vm_replication_contexts]},
        volumes=rows[ossea_volumes],
        disks=rows[vm_disks],
        failovers=rows[failover_jobs],
        mappings=rows[device_mappings],
        unreadable=[row for row in rows[oma_jobs] if row["id"] not in known],
    )


def _readable(build: Callable[[Any], T], rows: Sequence[Any]) -> Iterator[T]:
    """Those that make sense; of one that does not, `rest.parked_means_named` asks for its park."""
    for row in rows:
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            yield build(row)


def read_journal(connection: Connection) -> Journal:
    """Everything in one transaction."""
    return build_journal({table: connection.execute(select(table)).mappings().all() for table in TABLES})
