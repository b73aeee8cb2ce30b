"""The lists are read by an index, in its order, whatever their length."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Connection

from oma.ports import ContextFilter, JobFilter
from tests.contract.store.conftest import Store, sent_statements
from tests.contract.store.world import NOW, build_queued, context_id, uid

LISTS: dict[str, Callable[[Store], Awaitable[Any]]] = {
    "vms": lambda store: store.inventory.list_records(ContextFilter(), 2, None),
    "vms by status": lambda store: store.inventory.list_records(ContextFilter(status="cleanup_required"), 2, None),
    "one vm": lambda store: store.inventory.get_records(context_id("pgtest1")),
    "a name": lambda store: store.inventory.list_contexts_named("pgtest1"),
    "known volumes": lambda store: store.inventory.list_known_volume_ids([uid("x")]),
    "jobs": lambda store: store.reader.list_jobs(JobFilter(), 2, None),
    "jobs of a vm": lambda store: store.reader.list_jobs(JobFilter(vm="pgtest1"), 2, None),
    "jobs of a context": lambda store: store.reader.list_jobs(JobFilter(context_id=context_id("pgtest1")), 2, None),
    "jobs of a state": lambda store: store.reader.list_jobs(JobFilter(status="queued"), 2, None),
    "jobs since": lambda store: store.reader.list_jobs(JobFilter(since=NOW), 2, None),
    "a job": lambda store: store.reader.find_job(uid("x")),
    "steps": lambda store: store.reader.list_steps(uid("x")),
    "actions": lambda store: store.reader.list_actions(uid("x")),
    "log": lambda store: store.reader.list_log(uid("x"), 2, None),
    "events": lambda store: store.reader.list_events(0, None, 2),
    "events of a job": lambda store: store.reader.list_events(0, uid("x"), 2),
    "open issues": lambda store: store.reader.list_issues(),
    "counts": lambda store: store.reader.count_jobs(),
    "renewal": lambda store: store.journal.renew_leases("oma-1", 30),
    "claim": lambda store: store.journal.claim_job("oma-1", 30),
}
SORTED_AFTERWARDS = {"vms", "vms by status", "one vm", "a name", "claim", "renewal", "actions"}
"""These sort a bounded number of rows: those of one page or one job, or the jobs that are active."""

NOT_A_LONG_TABLE = ("ossea_configs", "(subquery", "ranked", "complete")


@pytest.fixture
def url(sqlite_empty: str) -> str:
    return sqlite_empty


@pytest.mark.parametrize("name", LISTS)
async def test_no_table_is_read_whole(store: Store, name: str) -> None:
    await store.seed("pgtest1", "pgtest2")
    await store.journal.queue_job(build_queued("pgtest1"))
    with sent_statements() as sent:
        await LISTS[name](store)

    def explain(connection: Connection) -> list[str]:
        return [
            str(row[3])
            for statement, parameters in sent
            if statement.startswith(("SELECT", "UPDATE")) and "FROM " in statement
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]

    steps = await store.door.read(explain)
    whole = [step for step in steps if step.startswith("SCAN ") and " INDEX " not in step]
    whole = [step for step in whole if not step.removeprefix("SCAN ").startswith(NOT_A_LONG_TABLE)]
    assert steps
    assert whole == []
    if name not in SORTED_AFTERWARDS:
        assert not [step for step in steps if "TEMP B-TREE" in step]
