"""Jobs and their parts as lists: newest first, paged, filtered."""

from __future__ import annotations

from datetime import timedelta

import pytest

from oma.domain.changes import JobEnded, Noted
from oma.domain.errors import Code, OmaError
from oma.domain.states import JobState, LogLevel
from oma.ports import JobFilter
from tests.contract.store.conftest import Store, sent_statements
from tests.contract.store.world import NOW, build_queued, context_id, uid


async def queue(store: Store, count: int, same_time: bool = False) -> list[str]:
    """Job ids, oldest first."""
    ids = []
    for number in range(count):
        name = f"vm-{number}"
        await store.seed(name, disks=1)
        at = NOW if same_time else NOW + timedelta(microseconds=number)
        job = await store.journal.queue_job(build_queued(name, at=at, correlation_id=f"corr-{number}"))
        ids.append(job.id)
    return ids


async def list_all(store: Store, where: JobFilter, limit: int) -> list[str]:
    ids: list[str] = []
    cursor = None
    while True:
        page = await store.reader.list_jobs(where, limit, cursor)
        ids += [job.id for job in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return ids


async def test_jobs_newest_first_to_the_microsecond(store: Store) -> None:
    ids = await queue(store, 7)

    for limit in (1, 3, 7, 500):
        assert await list_all(store, JobFilter(), limit) == ids[::-1]


async def test_jobs_of_one_instant_are_paged_without_loss(store: Store) -> None:
    ids = await queue(store, 7, same_time=True)

    assert await list_all(store, JobFilter(), 2) == sorted(ids, reverse=True)


async def test_a_job_queued_between_two_pages_changes_nothing_behind_them(store: Store) -> None:
    ids = await queue(store, 4)
    first = await store.reader.list_jobs(JobFilter(), 2, None)
    await store.seed("late", disks=1)
    await store.journal.queue_job(build_queued("late", at=NOW + timedelta(hours=1)))

    second = await store.reader.list_jobs(JobFilter(), 2, first.next_cursor)

    assert [job.id for job in (*first.items, *second.items)] == ids[::-1]


async def test_job_filters(store: Store) -> None:
    ids = await queue(store, 4)
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    await store.journal.apply(claimed.lease, [JobEnded(JobState.FAILED, "No.")], NOW)

    async def found(**where) -> list[str]:
        return await list_all(store, JobFilter(**where), 10)

    assert await found(vm="vm-2") == [ids[2]]
    assert await found(vm="VM-2") == []
    assert await found(context_id=context_id("vm-1")) == [ids[1]]
    assert await found(status="failed") == [ids[0]]
    assert await found(status="nonsense") == []
    assert await found(operation="failed-execution-cleanup") == ids[::-1]
    assert await found(operation="other") == []
    assert await found(correlation_id="corr-3") == [ids[3]]
    since, until = NOW + timedelta(microseconds=1), NOW + timedelta(microseconds=3)
    assert await found(since=since, until=until) == [ids[2], ids[1]]


@pytest.mark.parametrize("cursor", ["", "%", "WyJqb2JzIiwieCIsInkiXQ", "WyJqb2JzIiwxLDJd"])
async def test_bad_cursors_of_jobs_and_log(store: Store, cursor: str) -> None:
    for ask in (
        lambda: store.reader.list_jobs(JobFilter(), 10, cursor),
        lambda: store.reader.list_log(uid("x"), 10, cursor),
    ):
        with pytest.raises(OmaError) as refused:
            await ask()
        assert refused.value.code is Code.INVALID_REQUEST
        assert refused.value.fields["field"] == "cursor"


async def test_a_cursor_of_another_list_is_a_bad_one(store: Store) -> None:
    await queue(store, 2)
    page = await store.reader.list_jobs(JobFilter(), 1, None)

    with pytest.raises(OmaError):
        await store.reader.list_log(uid("x"), 10, page.next_cursor)


async def test_log_lines_oldest_first_over_pages(store: Store) -> None:
    (job_id,) = await queue(store, 1)
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    notes = [Noted(LogLevel.INFO, f"line {number}") for number in range(9)]
    await store.journal.apply(claimed.lease, notes, NOW)

    messages: list[str] = []
    cursor = None
    while True:
        page = await store.reader.list_log(job_id, 4, cursor)
        messages += [line.message for line in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break

    assert messages[-9:] == [note.message for note in notes]
    assert len(messages) == 11


async def test_events_are_read_from_a_number_on(store: Store) -> None:
    first, second = await queue(store, 2)
    everything = await store.reader.list_events(0, None, 100)

    assert [event.job_id for event in everything] == [first, second]
    assert await store.reader.list_events(everything[0].seq, None, 100) == everything[1:]
    assert await store.reader.list_events(0, None, 1) == everything[:1]
    assert await store.reader.list_events(0, second, 100) == everything[1:]
    assert await store.reader.last_event_seq() == everything[-1].seq


async def test_counts_are_of_active_jobs(store: Store) -> None:
    assert await store.reader.count_jobs() == {"parked": 0, "queued": 0, "running": 0}
    await queue(store, 3)
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    assert await store.reader.count_jobs() == {"parked": 0, "queued": 2, "running": 1}
    await store.journal.apply(claimed.lease, [JobEnded(JobState.COMPLETED, "Done.")], NOW)
    assert await store.reader.count_jobs() == {"parked": 0, "queued": 2, "running": 0}


async def test_a_page_of_jobs_is_one_query(store: Store) -> None:
    await queue(store, 5)

    with sent_statements() as statements:
        await store.reader.list_jobs(JobFilter(), 50, None)

    assert len([one for one, _parameters in statements if one.startswith("SELECT")]) == 1


async def test_what_is_not_there(store: Store) -> None:
    assert await store.reader.find_job(uid("none")) is None
    assert list(await store.reader.list_steps(uid("none"))) == []
    assert list(await store.reader.list_actions(uid("none"))) == []
    assert list(await store.reader.list_issues()) == []
    assert await store.reader.last_event_seq() == 0
