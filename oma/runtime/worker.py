"""The worker: claims jobs by lease, lets the runner run them, keeps the leases, gives them back at the stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from oma.domain.changes import Change, JobReleased
from oma.domain.errors import Code, LeaseLost, OmaError
from oma.domain.events import Event
from oma.domain.jobs import ClaimedJob, Job, Lease
from oma.domain.states import JobState
from oma.ports import Clock, Ids, JobReader, JournalStore
from oma.runtime.own_faults import build_park
from oma.workflow.leases import LeaseTimes

log = structlog.get_logger(__name__)

GIVE_BACK_S = 5.0
"""Longest time that giving a lease back may take at the stop."""

MOST_AT_ONCE = 128
"""Claims under way together: enough that a thousand jobs after a restart take few commits."""


@dataclass(frozen=True, slots=True)
class WorkerPorts:
    """What the worker reads and writes. `publish` hands committed events to the listeners."""

    journal: JournalStore
    jobs: JobReader
    clock: Clock
    ids: Ids
    publish: Callable[[Iterable[Event]], None]


@dataclass(slots=True)
class _Held:
    lease: Lease
    task: asyncio.Task[None]


class Worker:
    """Runs up to `max_jobs` jobs at once, each in a task of its own.

    `run` takes one claimed job to its end, its park or a safe point, and raises `LeaseLost` when somebody else has it.
    """

    def __init__(
        self,
        ports: WorkerPorts,
        run: Callable[[ClaimedJob], Awaitable[str]],
        *,
        owner: str,
        max_jobs: int,
        lease_s: float,
        wake: asyncio.Event,
        times: LeaseTimes | None = None,
    ) -> None:
        self._ports = ports
        self._run = run
        self.owner = owner
        self._max_jobs = max_jobs
        self._lease_s = lease_s
        self._wake = wake
        self._times = times or LeaseTimes(ports.clock.monotonic)
        self._held: dict[str, _Held] = {}
        self._former: dict[str, Lease] = {}
        """Of runs that ended here; their jobs may still be ours."""
        self._turn = asyncio.Lock()
        self._draining = False

    @property
    def running(self) -> int:
        return len(self._held)

    async def claim(self) -> str | None:
        """Takes jobs until there is none, or as many run as may; first one, then more and more at once.

        Claims that are asked for together share a commit. Between two rounds the leases may be renewed.
        """
        claimed, at_once = 0, 1
        while not self._draining and (wanted := min(at_once, self._max_jobs - len(self._held))) > 0:
            async with self._turn:
                taken = await self._claim_some(wanted)
            claimed += taken
            if taken < wanted:
                break
            at_once = min(2 * at_once, MOST_AT_ONCE)
        return f"Claimed {claimed} jobs; {len(self._held)} run." if claimed else None

    async def renew(self) -> str | None:
        """Prolongs all leases; ends the runs whose lease is gone, and gives back jobs that nobody here runs."""
        async with self._turn:
            before = dict(self._held)
            asked_at = self._times.now()
            renewed = set(await self._ports.journal.renew_leases(self.owner, self._lease_s))
            self._times.keep(renewed & set(self._held), asked_at, self._lease_s)
            lost = [held for job_id, held in before.items() if job_id not in renewed]
            for held in lost:
                await self._end_if_lost(held)
            for job_id in renewed - set(before):
                await self._give_back_orphan(job_id)
            self._former = {job_id: lease for job_id, lease in self._former.items() if job_id in renewed}
        return None

    async def drain(self, timeout_s: float) -> str:
        """Lets the runs reach their safe point, cuts off those that don't in time, and gives their leases back.

        Whoever drains has told the runs to stop before. The leases must go on being renewed meanwhile.
        """
        self._draining = True
        # A claim that is under way gets its run first, which is told to stop like the others.
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVE_BACK_S), self._turn:
                pass
        tasks = {held.task: held.lease for held in self._held.values()}
        if not tasks:
            return "No job was running."
        _, late = await asyncio.wait(tasks, timeout=timeout_s)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=GIVE_BACK_S)
            sentence = "The daemon stopped before this run reached a safe point; the next one probes what was sent."
            await asyncio.gather(*(self._give_back(tasks[task], sentence) for task in late if task.done()))
        return f"{len(tasks) - len(late)} of {len(tasks)} runs reached a safe point."

    async def _claim_some(self, wanted: int) -> int:
        """How many were there to take. One that can't be had keeps none of the others from being run."""
        asked_at = self._times.now()
        claims = (self._ports.journal.claim_job(self.owner, self._lease_s) for _ in range(wanted))
        answers = await asyncio.gather(*claims, return_exceptions=True)
        jobs = [one for one in answers if isinstance(one, ClaimedJob)]
        for job in jobs:
            await self._start(job)
            self._times.keep([job.job.id], asked_at, self._lease_s)
        for one in answers:
            if isinstance(one, BaseException):
                raise one
        return len(jobs)

    async def _start(self, claimed: ClaimedJob) -> None:
        """A job that comes back to us while its former task still runs: that task has lost its lease."""
        former = self._held.get(claimed.job.id)
        if former is not None:
            await _cancel(former.task)
        task = asyncio.create_task(self._work(claimed), name=f"job-{claimed.job.id}")
        held = _Held(claimed.lease, task)
        self._held[claimed.job.id] = held
        task.add_done_callback(lambda _task: self._forget(claimed.job.id, held))

    def _forget(self, job_id: str, held: _Held) -> None:
        if self._held.get(job_id) is held:
            del self._held[job_id]
            self._former[job_id] = held.lease
            self._times.drop(job_id)
        self._wake.set()

    async def _work(self, claimed: ClaimedJob) -> None:
        """The outermost edge of a run: it never takes the daemon with it."""
        job = claimed.job
        with structlog.contextvars.bound_contextvars(
            job_id=job.id, vm_name=job.vm_name, correlation_id=job.correlation_id
        ):
            try:
                log.info(await self._run(claimed))
            except LeaseLost as error:
                log.warning("Somebody else has this job now; nothing more was written.", reason=str(error))
            except OmaError as error:
                log.warning("The run was broken off; it is gone on with from its journal.", reason=str(error))
            except Exception:
                log.exception("A run failed in a way nobody foresaw.")
                await self._park(claimed)

    async def _park(self, claimed: ClaimedJob) -> None:
        """A fault of ours: the job stops with an issue, so that nothing is repeated blindly."""
        try:
            actions = await self._ports.jobs.list_actions(claimed.job.id)
        except OmaError as error:
            log.warning("The run could not be parked.", job_id=claimed.job.id, reason=str(error))
            return
        await self._write(claimed.lease, build_park(claimed.job, actions, self._ports.ids, self._ports.clock.now()))

    async def _end_if_lost(self, held: _Held) -> None:
        """A job that ended by itself is no longer ours either, but its task is about to end.

        One that somebody else had meanwhile is lost, however it stands now.
        """
        try:
            job = await self._ports.jobs.find_job(held.lease.job_id)
        except OmaError as error:
            _raise_if_away(error)
            log.warning("The lease of a job that can't be read is lost.", job_id=held.lease.job_id, reason=str(error))
            await _cancel(held.task)
            return
        others = job is not None and job.lease_fence != held.lease.fence
        if job is None or others or (job.state is JobState.RUNNING and not _is_ours(job, held.lease)):
            log.warning("The lease of a job is lost; its run is ended here.", job_id=held.lease.job_id)
            await _cancel(held.task)

    async def _give_back_orphan(self, job_id: str) -> None:
        """A run that broke off, such as by a database that was away, left its lease with us.

        One whose rows can't be read is given back too: whoever claims it next parks it.
        """
        try:
            job = await self._ports.jobs.find_job(job_id)
        except OmaError as error:
            _raise_if_away(error)
            log.warning("A run that had broken off can't be read.", job_id=job_id, reason=str(error))
            lease = self._former.get(job_id)
        else:
            is_ours = job is not None and job.state is JobState.RUNNING and job.lease_owner == self.owner
            lease = Lease(job_id, self.owner, job.lease_fence) if job is not None and is_ours else None
        if lease is None or job_id in self._held:
            return
        await self._give_back(lease, "The run had broken off; it goes back to the queue.")
        self._wake.set()

    async def _give_back(self, lease: Lease, sentence: str) -> None:
        try:
            async with asyncio.timeout(GIVE_BACK_S):
                await self._write(lease, (JobReleased(sentence),))
        except TimeoutError:
            log.warning("A lease could not be given back in time; it runs out by itself.", job_id=lease.job_id)

    async def _write(self, lease: Lease, changes: Sequence[Change]) -> None:
        try:
            self._ports.publish(await self._ports.journal.apply(lease, changes, self._ports.clock.now()))
        except (LeaseLost, OmaError) as error:
            log.warning("The journal could not be written.", job_id=lease.job_id, reason=str(error))


def _raise_if_away(error: OmaError) -> None:
    """While the database is away nothing can be told of any job; any other error is of this one job only."""
    if error.code is Code.DATABASE_UNAVAILABLE:
        raise error


def _is_ours(job: Job, lease: Lease) -> bool:
    return job.lease_owner == lease.owner and job.lease_fence == lease.fence


async def _cancel(task: asyncio.Task[None]) -> None:
    """Ends a task and waits until it has ended; what it raised is its own affair."""
    task.cancel()
    await asyncio.wait({task})
