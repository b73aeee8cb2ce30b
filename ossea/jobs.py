"""Follows asynchronous jobs: one loop for all that are waited for, however many wait.

`cs` can wait for a job too, but polls for ever where a failed job has no `jobresult`, gives up on one bad poll, and
runs one loop per job. Here every look may fail: a job is given up only by its waiter.
Sources: `QueryAsyncJobResultCmd`, `ListAsyncJobsCmd` (newer servers list pending jobs only).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ossea.clock import Monotonic
from ossea.errors import CloudStackError, ErrorKind
from ossea.models import JobResult, JobStatus
from ossea.reading import Reader
from ossea.schedule import Durations, delay_before_look, floor_after_round, pays_to_sweep
from ossea.wire import POLLER_CONNECTIONS

QUEUED_COMMANDS: Final = frozenset(
    {"attachVolume", "detachVolume", "startVirtualMachine", "stopVirtualMachine", "createSnapshot"}
)
"""Commands that CloudStack works off through one queue per VM, so that one may wait for another."""

ErrorFor = Callable[[str], CloudStackError]

REMEMBERED_SUBMISSIONS: Final = 4096
FORGOTTEN_AFTER_S: Final = 120.0
"""A submission that nobody was seen to wait for no longer counts as queued."""
FIRST_PAUSE_S: Final = 0.1
MISSES_BEFORE_UNLISTED: Final = 2
ROWS_ASKED_AGAIN_AFTER_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class _Submission:
    command: str
    at: float
    alone: bool
    """Nothing of ours was queued when it was submitted, so that its duration is its own."""


@dataclass(slots=True, eq=False)
class _Followed:
    """A job that somebody waits for."""

    job_id: str
    command: str | None
    since: float
    """When it was submitted, first waited for, or last moved up in its queue."""
    due_at: float
    submission: _Submission | None
    ended: asyncio.Future[JobResult | CloudStackError]
    last: JobResult
    waiters: int = 0
    seen: bool = False
    misses: int = 0
    """How often the list left it out while it was pending."""
    bad_looks: int = 0
    """In a row."""


class JobPoller:
    """One sweep for many jobs. `poll_min_s` and `poll_max_s` bound the time between two looks."""

    def __init__(
        self, reader: Reader, *, poll_min_s: float, poll_max_s: float, monotonic: Monotonic = time.monotonic
    ) -> None:
        self.last_error: str | None = None
        self._reader = reader
        self._poll_min_s = poll_min_s
        self._poll_max_s = poll_max_s
        self._monotonic = monotonic
        self._durations = Durations()
        self._submissions: dict[str, _Submission] = {}
        self._followed: dict[str, _Followed] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._rows_listed = 0
        self._listed_at = 0.0
        self._not_before = 0.0
        self._pause_s = 0.0

    def submitted(self, job_id: str, command: str) -> None:
        """CloudStack has accepted this job just now."""
        now = self._monotonic()
        alone = command not in QUEUED_COMMANDS or not any(
            one.command in QUEUED_COMMANDS and now - one.at < FORGOTTEN_AFTER_S for one in self._submissions.values()
        )
        self._submissions[job_id] = _Submission(command, now, alone)
        while len(self._submissions) > REMEMBERED_SUBMISSIONS:
            del self._submissions[next(iter(self._submissions))]

    async def wait(self, job_id: str, deadline_s: float | None) -> JobResult:
        """The job's end, or its last known state (`PENDING`) after `deadline_s`.

        Raises `CloudStackError` (`NO_ANSWER`) only where the client is closed meanwhile.
        """
        if self._closed:
            raise _closed(job_id)
        followed = self._follow(job_id)
        followed.waiters += 1
        try:
            await asyncio.wait({followed.ended}, timeout=deadline_s)
        finally:
            followed.waiters -= 1
            if not followed.waiters and self._followed.get(job_id) is followed:
                del self._followed[job_id]
        if not followed.ended.done():
            return followed.last
        result = followed.ended.result()
        if isinstance(result, CloudStackError):
            raise result
        return result

    async def aclose(self) -> None:
        """Ends the loop; whoever still waits gets `NO_ANSWER`."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None
        self._abandon(_closed)

    def _follow(self, job_id: str) -> _Followed:
        followed = self._followed.get(job_id)
        if followed is None:
            now = self._monotonic()
            submission = self._submissions.get(job_id)
            followed = _Followed(
                job_id=job_id,
                command=submission.command if submission else None,
                since=submission.at if submission else now,
                due_at=now,
                submission=submission,
                ended=asyncio.get_running_loop().create_future(),
                last=JobResult(job_id, JobStatus.PENDING),
                seen=submission is not None,
            )
            if submission is not None:
                followed.due_at = max(now, submission.at + self._poll_min_s)
            self._followed[job_id] = followed
            self._wake.set()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run(), name="cloudstack job poller")
        return followed

    async def _run(self) -> None:
        """Until nobody waits any more."""
        try:
            while self._followed:
                await self._sleep_until_due()
                now = self._monotonic()
                due = [one for one in self._followed.values() if one.due_at <= now + self._poll_min_s / 2]
                if due and now >= self._not_before:
                    await self._look_at(due)
        except Exception as error:  # noqa: BLE001 - the loop's edge: a waiter must not hang on a fault of ours
            name = type(error).__name__
            self.last_error = f"the job poller stopped: {name}"
            self._abandon(
                lambda job_id: CloudStackError(
                    ErrorKind.NO_ANSWER, "queryAsyncJobResult", f"job {job_id} was not followed to its end ({name})"
                )
            )

    async def _sleep_until_due(self) -> None:
        self._wake.clear()
        earliest = min(one.due_at for one in self._followed.values())
        wait_s = max(earliest, self._not_before) - self._monotonic()
        if wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _look_at(self, due: Sequence[_Followed]) -> None:
        began = self._monotonic()
        if began - self._listed_at > ROWS_ASKED_AGAIN_AFTER_S:
            self._rows_listed = 0
        listed = [one for one in due if one.misses < MISSES_BEFORE_UNLISTED]
        if pays_to_sweep(len(listed), self._rows_listed):
            rows, error = await self._sweep(due)
        else:
            rows, error = len(due), await self._ask_each(due)
        now = self._monotonic()
        self._pace(now, error, floor_after_round(rows, now - began, self._poll_min_s, self._poll_max_s))

    async def _sweep(self, due: Sequence[_Followed]) -> tuple[int, CloudStackError | None]:
        """One list tells which jobs are pending still; each of the others is asked for how it ended."""
        following = [one for one in self._followed.values() if one.misses < MISSES_BEFORE_UNLISTED]
        try:
            listed = {job.id: job for job in await self._reader.sweep_jobs()}
        except CloudStackError as error:
            return 0, error
        self._rows_listed = len(listed)
        self._listed_at = self._monotonic()
        asked = [one for one in due if one.misses >= MISSES_BEFORE_UNLISTED]
        for one in following:
            job = listed.get(one.job_id)
            if job is not None and not job.ended:
                self._take(one, job)
            else:
                asked.append(one)
                one.misses += job is None
        return len(listed), await self._ask_each(asked)

    async def _ask_each(self, asked: Sequence[_Followed]) -> CloudStackError | None:
        """Asks for each job by itself, a few at a time; returns an error where it concerns more than one job."""
        slots = asyncio.Semaphore(POLLER_CONNECTIONS)
        answers = await asyncio.gather(*(self._ask(one, slots) for one in asked))
        errors = [error for error in answers if error is not None]
        throttled = next((error for error in errors if error.kind is ErrorKind.THROTTLED), None)
        return throttled or (errors[0] if errors and len(errors) == len(asked) else None)

    async def _ask(self, followed: _Followed, slots: asyncio.Semaphore) -> CloudStackError | None:
        async with slots:
            try:
                job = await self._reader.look_at_job(followed.job_id)
            except CloudStackError as error:
                followed.bad_looks += 1
                pause_s = FIRST_PAUSE_S * 2 ** min(followed.bad_looks, 10)
                followed.due_at = self._monotonic() + min(pause_s, self._poll_max_s)
                return error
        followed.bad_looks = 0
        self._take(followed, job)
        return None

    def _take(self, followed: _Followed, job: JobResult) -> None:
        """One look's result."""
        followed.command = followed.command or job.command
        if job.status is JobStatus.ABSENT:
            job = replace(job, known_before=followed.seen, command=followed.command)
        if job.ended:
            self._end(followed, job)
            return
        followed.seen = True
        followed.last = job
        self._plan(followed, self._monotonic())

    def _plan(self, followed: _Followed, now: float) -> None:
        fastest_s = self._durations.fastest(followed.command)
        delay_s = delay_before_look(now - followed.since, fastest_s, self._poll_min_s, self._poll_max_s)
        followed.due_at = now + delay_s

    def _end(self, followed: _Followed, job: JobResult) -> None:
        now = self._monotonic()
        followed.last = job
        current = self._followed.get(followed.job_id, followed)
        if current is not followed and job.status is JobStatus.ABSENT:
            return  # asked before the newer waiter came, who may have sent the job meanwhile
        # Whoever began to wait while this look was under way is told as well.
        following = {followed, current}
        self._followed.pop(followed.job_id, None)
        self._submissions.pop(followed.job_id, None)
        submission = followed.submission
        if submission is not None and submission.alone and job.status is JobStatus.SUCCEEDED:
            self._durations.learn(submission.command, now - submission.at)
        if followed.command in QUEUED_COMMANDS:
            self._move_up(now)
        for one in following:
            if not one.ended.done():
                one.ended.set_result(job)

    def _move_up(self, now: float) -> None:
        """A queued job has ended: the one behind it begins now, whichever it is."""
        for one in self._followed.values():
            if one.command in QUEUED_COMMANDS:
                one.since = now
                self._plan(one, now)

    def _pace(self, now: float, error: CloudStackError | None, floor_s: float) -> None:
        """After a bad look the pause grows, to `poll_max_s` at most or as long as CloudStack says."""
        if error is None:
            self._pause_s = self._pause_s / 2 if self._pause_s > FIRST_PAUSE_S else 0.0
            self.last_error = None
        else:
            self._pause_s = min(max(FIRST_PAUSE_S, self._pause_s * 2), self._poll_max_s)
            self.last_error = error.text
            floor_s = max(floor_s, error.retry_after_s or 0.0)
        self._not_before = now + floor_s + self._pause_s

    def _abandon(self, error_for: ErrorFor) -> None:
        for one in list(self._followed.values()):
            if not one.ended.done():
                one.ended.set_result(error_for(one.job_id))
        self._followed.clear()


def _closed(job_id: str) -> CloudStackError:
    text = f"the client was closed before job {job_id} was seen to end"
    return CloudStackError(ErrorKind.NO_ANSWER, "queryAsyncJobResult", text)
