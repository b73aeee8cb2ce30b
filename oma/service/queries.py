"""What people and programs may look at: VMs, jobs, events, health. Nothing here changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from oma.domain.actions import Action
from oma.domain.circuit import TARGETS
from oma.domain.errors import Code, OmaError
from oma.domain.events import Event
from oma.domain.issues import Issue
from oma.domain.jobs import Job, LogLine, Step
from oma.domain.records import VmRecords
from oma.ports import ContextFilter, JobFilter, Page, UpstreamError
from oma.service.deps import Deps
from oma.service.epochs import refuse_older
from oma.service.names import get_context
from oma.workflow.needs import Need, needs_cleanup

STREAM_BATCH = 500
SCAN_PAGE = 500


@dataclass(frozen=True, slots=True)
class VmView:
    """A VM as lists and the page show it."""

    records: VmRecords
    need: Need


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with all its parts."""

    job: Job
    steps: tuple[Step, ...]
    actions: tuple[Action, ...]
    issues: tuple[Issue, ...]


@dataclass(frozen=True, slots=True)
class DependencyHealth:
    name: str
    healthy: bool
    sentence: str
    latency_s: float


async def list_vms(
    deps: Deps, where: ContextFilter, *, needs: bool | None, limit: int, cursor: str | None
) -> Page[VmView]:
    """A page of VMs by name; with `needs`, pages are read until `limit` matching ones are found.

    A page that holds more matching VMs than are wanted is read once more, only as far as the last one of them, so that
    the cursor stands right behind it.
    """
    found: list[VmView] = []
    now = deps.clock.now()
    size = limit if needs is None else SCAN_PAGE
    while True:
        page = await deps.inventory.list_records(where, size, cursor)
        views = [VmView(records, needs_cleanup(records, now, deps.limits)) for records in page.items]
        if needs is None:
            return Page(tuple(views), page.next_cursor)
        places = [place for place, view in enumerate(views, 1) if view.need.recommended is needs]
        wanted = limit - len(found)
        if len(places) > wanted:
            size = places[wanted - 1]
            continue
        found += [views[place - 1] for place in places]
        cursor = page.next_cursor
        if cursor is None or len(found) >= limit:
            return Page(tuple(found), cursor)


async def get_vm(deps: Deps, vm_name: str, context_id: str | None) -> VmView:
    context = await get_context(deps, vm_name, context_id)
    records = await deps.inventory.get_records(context.context_id)
    return VmView(records, needs_cleanup(records, deps.clock.now(), deps.limits))


async def get_vm_of_context(deps: Deps, context_id: str) -> VmView:
    """The same by the context's id alone; raises `vm_not_found`."""
    records = await deps.inventory.get_records(context_id)
    return VmView(records, needs_cleanup(records, deps.clock.now(), deps.limits))


async def list_jobs(deps: Deps, where: JobFilter, limit: int, cursor: str | None) -> Page[Job]:
    return await deps.jobs.list_jobs(where, limit, cursor)


async def get_job(deps: Deps, job_id: str) -> Job:
    job = await deps.jobs.find_job(job_id)
    if job is None:
        raise OmaError(Code.JOB_NOT_FOUND, f"No job has the id {job_id!r}; `oma jobs list` shows them.", job_id=job_id)
    return job


async def get_job_view(deps: Deps, job_id: str) -> JobView:
    job = await get_job(deps, job_id)
    steps, actions, issues = await asyncio.gather(
        deps.jobs.list_steps(job_id), deps.jobs.list_actions(job_id), deps.jobs.list_issues(job_id=job_id)
    )
    return JobView(job, tuple(steps), tuple(actions), tuple(issues))


async def list_log(deps: Deps, job_id: str, limit: int, cursor: str | None) -> Page[LogLine]:
    await get_job(deps, job_id)
    return await deps.jobs.list_log(job_id, limit, cursor)


async def stream_events(deps: Deps, job_id: str | None, after_seq: int | None) -> AsyncIterator[Event]:
    """Journaled events after `after_seq` (None: from now on), then live ones, each once and in order.

    Ends when the daemon stops or the reader is far too slow; it may come again with its last `seq`.
    """
    with deps.bus.subscribe(job_id) as live:
        last = await deps.jobs.last_event_seq() if after_seq is None else after_seq
        while True:
            batch = await deps.jobs.list_events(last, job_id, STREAM_BATCH)
            for event in batch:
                last = event.seq
                yield event
            if len(batch) < STREAM_BATCH:
                break
        async for event in live:
            if event.seq > last:
                last = event.seq
                yield event


async def check_health(deps: Deps, timeout_s: float = 3.0) -> tuple[DependencyHealth, ...]:
    """Asks every dependency at once."""
    return tuple(
        await asyncio.gather(
            _check(deps, "database", lambda: _check_database(deps), timeout_s),
            _check(deps, "cloudstack", deps.cloud.check, timeout_s),
            _check(deps, "volume_daemon", deps.volumes.check, timeout_s),
        )
    )


async def _check_database(deps: Deps) -> str:
    """It answers, and it is not older than the world."""
    sentence = await deps.jobs.check()
    await refuse_older(deps.epochs)
    return sentence


async def _check(deps: Deps, name: str, ask: Callable[[], Awaitable[str]], timeout_s: float) -> DependencyHealth:
    began = deps.clock.monotonic()
    try:
        async with asyncio.timeout(timeout_s):
            sentence, healthy = await ask(), True
    except TimeoutError:
        sentence, healthy = f"No answer within {timeout_s:g} s.", False
    except (OmaError, UpstreamError) as error:
        sentence, healthy = str(error), False
    away = [outage for outage in deps.brakes.outages if TARGETS[outage.target] == name]
    if not healthy and away:
        sentence = f"{away[0].sentence} Runs wait in the queue and go on by themselves."
    return DependencyHealth(name, healthy, sentence, deps.clock.monotonic() - began)
