"""A transaction that began to read before another daemon's commit must not decide by what it saw then.

The writer of a daemon commits several of its callers together, so that a claim may run in a transaction whose snapshot
is older than the work of the holder whose lease it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import pytest
from sqlalchemy import Connection, create_engine, select

from database.tables import oma_jobs
from oma.domain.actions import ActionKind
from oma.domain.changes import ActionStarted, IssueOpened, JobEnded, StepStarted
from oma.domain.errors import Code, OmaError
from oma.domain.states import JobState, Phase
from oma.store.leases import claim_jobs
from oma.store.queueing import queue_job
from oma.store.resuming import resume_job
from tests.contract.store.conftest import Store
from tests.contract.store.test_resuming import park, resumed
from tests.contract.store.world import NOW, build_action, build_issue, build_plan, build_queued, uid

pytestmark = pytest.mark.mariadb


@pytest.fixture
def url(mariadb_empty: str) -> str:
    return mariadb_empty


T = TypeVar("T")


class OldTransaction:
    """A transaction of a second daemon that has begun to read already."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def begin(self) -> None:
        """Everything that is committed after this is younger than the transaction's snapshot."""

        def look(connection: Connection) -> None:
            connection.rollback()
            connection.execute(select(oma_jobs)).all()

        await self.run(look)

    async def run(self, fn: Callable[[Connection], T]) -> T:
        return await asyncio.to_thread(fn, self._connection)


@pytest.fixture
async def old(url: str, store: Store) -> AsyncIterator[OldTransaction]:
    """At REPEATABLE READ, as the writer stands where the binary log holds statements."""
    engine = create_engine(url, isolation_level="REPEATABLE READ")
    connection = await asyncio.to_thread(engine.connect)
    old = OldTransaction(connection)
    await old.begin()
    yield old
    await asyncio.to_thread(connection.close)
    await asyncio.to_thread(engine.dispose)


async def test_a_claim_sees_the_former_holders_last_commit(store: Store, old: OldTransaction) -> None:
    await store.seed("pgtest1")
    await store.journal.queue_job(build_queued("pgtest1"))
    former = await store.journal.claim_job("oma-1", -5)
    assert former is not None
    action = build_action(former.job.id)

    await old.begin()
    await store.journal.apply(
        former.lease, [StepStarted(Phase.DETACH, "Detaching."), ActionStarted(action, "Detach.")], NOW
    )

    (claimed,), _events = await old.run(lambda connection: claim_jobs(connection, "oma-2", 30, 1))

    assert [found.id for found in claimed.actions] == [action.id]
    assert [step.phase for step in claimed.steps] == [Phase.DETACH]
    assert claimed.job.phase is Phase.DETACH


async def test_a_claim_does_not_take_what_was_renewed_or_taken_meanwhile(store: Store, old: OldTransaction) -> None:
    await store.seed("pgtest1", "pgtest2")
    await store.journal.queue_job(build_queued("pgtest1"))
    await store.journal.claim_job("oma-1", -5)
    await store.journal.queue_job(build_queued("pgtest2"))

    await old.begin()
    await store.journal.renew_leases("oma-1", 60)
    await store.journal.claim_job("oma-1", 60)

    assert await old.run(lambda connection: claim_jobs(connection, "oma-2", 30, 1)) == ([], [])


async def test_queueing_sees_an_issue_and_a_key_of_the_moment_before(store: Store, old: OldTransaction) -> None:
    await store.seed("pgtest1")
    job = await store.journal.queue_job(build_queued("pgtest1", key="key-1"))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    await store.journal.apply(
        claimed.lease,
        [IssueOpened(build_issue(job.id), "Issue."), JobEnded(JobState.FAILED, "Failed.")],
        NOW,
    )
    plan = build_plan("pgtest1", former_status="cleanup_required")
    second = build_queued("pgtest1", plan=plan, job_id=uid("second"))
    third = build_queued("pgtest1", plan=plan, job_id=uid("third"), key="key-1")

    with pytest.raises(OmaError) as refused:
        await old.run(lambda connection: queue_job(connection, second))
    assert refused.value.code is Code.NEEDS_RESOLUTION
    again, events = await old.run(lambda connection: queue_job(connection, third))
    assert (again.id, events) == (job.id, [])


async def test_a_resume_sees_an_issue_of_the_moment_before(store: Store, old: OldTransaction) -> None:
    """It was resumed by somebody else and parked again meanwhile, for something that force does not pass."""
    run = await park(store, (ActionKind.DELETE_SNAPSHOT, None))
    await old.begin()
    await store.journal.resume_job(resumed(run))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    issue = build_issue(run.job.id, cause="revert/2")
    await store.journal.apply(
        claimed.lease, [IssueOpened(issue, "Issue."), JobEnded(JobState.PARKED, "Parked.", error={"detail": "x"})], NOW
    )

    with pytest.raises(OmaError) as refused:
        await old.run(lambda connection: resume_job(connection, resumed(run)))

    assert (refused.value.code, refused.value.fields["issue_ids"]) == (Code.NEEDS_RESOLUTION, [issue.id])
