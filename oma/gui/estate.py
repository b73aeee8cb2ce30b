"""What the estate page shows: each VM with its state, why a clean-up is recommended, and what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from oma.domain.jobs import OPERATION, Job
from oma.domain.records import READY_FOR_FAILOVER, VmRecords
from oma.domain.states import JobState, phase_seq
from oma.domain.verdict import GOOD, SOURCE_OFF, was_source_powered_off
from oma.gui import urls, words
from oma.ports import ContextFilter, Page
from oma.service import queries
from oma.service.deps import Deps
from oma.service.queries import VmView

PAGE_SIZE: Final = 50
LONGEST_FILTER: Final = 255
RUNS: Final = frozenset({JobState.QUEUED, JobState.RUNNING})


@dataclass(frozen=True, slots=True)
class Filters:
    """What the address asks for. `needs`: "yes", "no" or empty for both."""

    status: str = ""
    needs: str = ""
    q: str = ""
    cursor: str = ""

    @property
    def active(self) -> bool:
        return bool(self.status or self.needs or self.q)

    @property
    def wanted_need(self) -> bool | None:
        return {"yes": True, "no": False}.get(self.needs)


@dataclass(frozen=True, slots=True)
class RunningJob:
    """The run that holds a VM's place. `sentence` says how far it is."""

    url: str
    badge: words.Badge
    sentence: str
    done_phases: int
    runs: bool


@dataclass(frozen=True, slots=True)
class ShownVerdict:
    """What the VM's last run came to; `next_step` is empty where nothing has to be done."""

    badge: words.Badge
    next_step: str


@dataclass(frozen=True, slots=True)
class VmRow:
    """One VM on the page. `confirm_url` is None where no clean-up is recommended."""

    name: str
    context_id: str
    vcenter: str
    badge: words.Badge
    why: str
    reasons: tuple[str, ...]
    volumes: int
    snapshots: int
    open_issues: int
    job: RunningJob | None
    confirm_url: str | None
    verdict: ShownVerdict | None
    source_off: bool


@dataclass(frozen=True, slots=True)
class Estate:
    """A page of VMs; `next_url` leads to the ones after it."""

    rows: tuple[VmRow, ...]
    next_url: str | None
    first_url: str | None
    statuses: tuple[tuple[str, str], ...]

    @property
    def something_runs(self) -> bool:
        return any(row.job is not None and row.job.runs for row in self.rows)


def read_filters(query: Mapping[str, str]) -> Filters:
    """Values that no VM can match are kept: the page then says that nothing was found."""
    needs = query.get("needs", "")
    return Filters(
        status=query.get("status", "").strip()[:LONGEST_FILTER],
        needs=needs if needs in ("yes", "no") else "",
        q=query.get("q", "").strip()[:LONGEST_FILTER],
        cursor=query.get("cursor", ""),
    )


async def build_estate(deps: Deps, filters: Filters) -> Estate:
    """One query for the VMs, one for each of their active jobs; a bad cursor is `invalid_request`."""
    where = ContextFilter(status=filters.status or None, q=filters.q or None)
    page = await queries.list_vms(
        deps, where, needs=filters.wanted_need, limit=PAGE_SIZE, cursor=filters.cursor or None
    )
    active = [view.records.active_job_id for view in page.items if view.records.active_job_id]
    jobs = {job.id: job for job in await asyncio.gather(*(queries.get_job(deps, job_id) for job_id in active))}
    return _estate(page, jobs, filters)


def _estate(page: Page[VmView], jobs: Mapping[str, Job], filters: Filters) -> Estate:
    kept = {"status": filters.status, "needs": filters.needs, "q": filters.q}
    return Estate(
        rows=tuple(build_row(view, jobs.get(view.records.active_job_id or "")) for view in page.items),
        next_url=urls.estate_url(**kept, cursor=page.next_cursor) if page.next_cursor else None,
        first_url=urls.estate_url(**kept) if filters.cursor else None,
        statuses=tuple((status, badge.word) for status, badge in words.CONTEXT_BADGES.items()),
    )


def build_row(view: VmView, job: Job | None) -> VmRow:
    records = view.records
    context = records.context
    return VmRow(
        name=context.vm_name,
        context_id=context.context_id,
        vcenter=context.vcenter_host,
        badge=words.badge_of_context(context.current_status),
        why=_why(view),
        reasons=() if job else tuple(reason for reason in view.need.reasons if reason != view.need.why),
        volumes=len(records.volumes),
        snapshots=count_snapshots(records),
        open_issues=len(records.open_issue_ids),
        job=_running(job) if job is not None else None,
        confirm_url=urls.confirm_url(context.context_id) if view.need.recommended else None,
        verdict=None if job is not None and job.state in RUNS else find_verdict(records),
        source_off=was_source_powered_off(records),
    )


def find_verdict(records: VmRecords) -> ShownVerdict | None:
    """The verdict of the last run of ours; None where there was none, or a failover has begun since."""
    summary = records.context.last_operation_summary or {}
    badge = words.REPLICA_BADGES.get(str(summary.get("replica")))
    if badge is None or summary.get("operation") != OPERATION or not _is_newest(records, summary):
        return None
    told = str(summary.get("next") or "").removeprefix(SOURCE_OFF).strip()
    return ShownVerdict(badge, "" if told == GOOD else told)


def _is_newest(records: VmRecords, summary: Mapping[str, object]) -> bool:
    newest, at = records.newest_failover, summary.get("ended_at") or summary.get("completed_at")
    begun = newest.created_at or newest.started_at if newest else None
    if newest is None:
        return True
    try:
        return begun is not None and isinstance(at, str) and begun <= datetime.fromisoformat(at)
    except (TypeError, ValueError):
        return False


def _why(view: VmView) -> str:
    """A healthy VM needs no sentence."""
    if not view.need.reasons and view.records.context.current_status == READY_FOR_FAILOVER:
        return ""
    return view.need.why


def count_snapshots(records: VmRecords) -> int:
    """Distinct snapshots that are tracked for the VM's volumes."""
    ids = {volume.snapshot_id for volume in records.volumes} | {row.ossea_snapshot_id for row in records.mappings}
    return len([snapshot_id for snapshot_id in ids if snapshot_id])


def _running(job: Job) -> RunningJob:
    badge = words.JOB_BADGES[job.state]
    runs = job.state in RUNS
    if job.phase is None:
        return RunningJob(urls.job_url(job.id), badge, "waits for its turn" if runs else "", 0, runs)
    seq = phase_seq(job.phase)
    return RunningJob(urls.job_url(job.id), badge, f"phase {seq} of 5: {job.phase.value}", seq - 1, runs)
