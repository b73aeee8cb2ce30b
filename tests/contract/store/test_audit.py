"""The audit: one chain of hashes, whoever appends, in the transaction of what it tells."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from database.tables import oma_audit, oma_events, oma_jobs
from oma.domain.audit import BEGINNING, AuditAction, AuditDraft, AuditEntry
from oma.domain.changes import JobEnded, Noted
from oma.domain.errors import ConcurrentChange, OmaError
from oma.domain.jobs import CleanupRequest
from oma.domain.states import JobState, LogLevel
from oma.domain.words import Words
from tests.contract.store.conftest import Store
from tests.contract.store.world import NOW, build_plan, build_queued, context_id, uid, volume_id

pytestmark = pytest.mark.rule("2-reads-first")

REASON = "the drill is over; \u00e9\u00df\u6f22 \U0001f9ea"


def refusal(number: int = 0) -> AuditDraft:
    return AuditDraft(
        at=NOW + timedelta(microseconds=number),
        actor="operator",
        action=AuditAction.REFUSED,
        decision="device_in_use",
        vm_name="pgtest1",
        context_id=context_id("pgtest1"),
        words={"end_test": True},
        reason=REASON,
        detail={"number": number, "codes": ["device_in_use"], "share": 0.1},
    )


async def whole_chain(store: Store) -> list[AuditEntry]:
    """Every entry, oldest first; fails where the chain is broken."""
    entries: list[AuditEntry] = []
    cursor = None
    while True:
        page = await store.reader.list_audit(7, cursor)
        entries += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    entries.reverse()
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    assert [entry.prev_hash for entry in entries] == [BEGINNING, *(entry.hash for entry in entries[:-1])][
        : len(entries)
    ]
    assert all(entry.is_whole for entry in entries)
    return entries


async def test_entries_come_back_as_they_were_written_newest_first(store: Store) -> None:
    assert (await store.reader.list_audit(10, None)).items == ()
    drafts = [refusal(number) for number in range(3)]
    await store.journal.append_audit(drafts[:2])
    await store.journal.append_audit(drafts[2:])

    page = await store.reader.list_audit(2, None)
    rest = await store.reader.list_audit(2, page.next_cursor)

    assert [entry.draft for entry in (*page.items, *rest.items)] == drafts[::-1]
    assert rest.next_cursor is None
    assert len(await whole_chain(store)) == 3


async def test_concurrent_daemons_keep_one_chain(store: Store, other: Store) -> None:
    """Also where one's transaction takes numbers while the other's is under way."""
    sides = [store, other]
    await asyncio.gather(*(sides[number % 2].journal.append_audit([refusal(number)]) for number in range(40)))

    entries = await whole_chain(store)

    assert sorted(entry.draft.detail["number"] for entry in entries) == list(range(40))


async def test_an_entry_that_was_changed_is_no_longer_whole(store: Store) -> None:
    await store.journal.append_audit([refusal()])
    (entry,) = (await store.reader.list_audit(1, None)).items
    for other in (
        replace(entry.draft, reason="nothing"),
        replace(entry.draft, actor="somebody"),
        replace(entry.draft, at=NOW + timedelta(seconds=1)),
        replace(entry.draft, detail={}),
    ):
        assert not replace(entry, draft=other).is_whole
    assert not replace(entry, seq=2).is_whole
    assert not replace(entry, prev_hash="1" * 64).is_whole


async def test_a_refusal_writes_its_entry_and_nothing_else(store: Store) -> None:
    await store.seed("pgtest1")
    await store.journal.append_audit([refusal()])
    assert await store.rows(oma_events) == []
    assert await store.rows(oma_jobs) == []


async def test_a_run_is_audited_from_its_first_word_to_its_end(store: Store) -> None:
    await store.seed("pgtest1")
    words = Words(end_test=True, snapshots=((volume_id("pgtest1"), uid("named")),), reason=REASON)
    request = CleanupRequest("pgtest1", requested_by="operator", words=words).as_json()
    job = await store.journal.queue_job(build_queued("pgtest1", request=request))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    await store.journal.apply(
        claimed.lease,
        [JobEnded(JobState.COMPLETED, "Done.", result={"replica": "ready", "leaks": [{"id": "leak-1"}]})],
        NOW,
    )

    begun, first, second, ended = [entry.draft for entry in await whole_chain(store)]

    assert (begun.action, begun.reason, begun.words) == (AuditAction.RUN_BEGUN, REASON, words.as_json())
    assert [(one.action, one.decision, one.reason) for one in (first, second)] == [
        (AuditAction.WORD_SPOKEN, "end_test", REASON),
        (AuditAction.WORD_SPOKEN, "snapshots", REASON),
    ]
    assert (ended.action, ended.decision) == (AuditAction.RUN_ENDED, "completed")
    assert ended.detail == {"sentence": "Done.", "replica": "ready", "leaks": ["leak-1"]}
    assert {one.job_id for one in (begun, first, second, ended)} == {job.id}
    assert {one.actor for one in (begun, first, second, ended)} == {"operator"}


async def test_what_is_undone_leaves_no_entry(store: Store) -> None:
    await store.seed("pgtest1")
    with pytest.raises(ConcurrentChange):
        await store.journal.queue_job(build_queued("pgtest1", plan=build_plan("pgtest1", former_status="failed")))
    assert await store.rows(oma_audit) == []

    await store.journal.queue_job(build_queued("pgtest1"))
    with pytest.raises(OmaError):
        await store.journal.queue_job(build_queued("pgtest1", job_id=uid("second")))
    assert [entry.draft.action for entry in await whole_chain(store)] == [AuditAction.RUN_BEGUN]


async def test_a_parked_run_says_so_and_a_run_that_goes_on_writes_none(store: Store) -> None:
    await store.seed("pgtest1")
    await store.journal.queue_job(build_queued("pgtest1"))
    claimed = await store.journal.claim_job("oma-1", 30)
    assert claimed is not None
    await store.journal.apply(claimed.lease, [Noted(LogLevel.INFO, "on")], NOW)
    await store.journal.apply(
        claimed.lease, [JobEnded(JobState.PARKED, "Parked.", error={"code": "cleanup_failed", "issue_ids": ["i"]})], NOW
    )
    last = (await whole_chain(store))[-1].draft
    assert (last.action, last.detail["issue_ids"]) == (AuditAction.RUN_PARKED, ["i"])
