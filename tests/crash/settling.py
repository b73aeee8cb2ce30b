"""An operator who settles what is parked, by the words that the world does not contradict."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from oma.domain.errors import OmaError
from oma.domain.issues import CANCELLED
from oma.domain.jobs import Job
from oma.domain.resolving import Resolution
from oma.domain.words import Words
from oma.service.control import resume_job
from oma.service.issues import Said, resolve_issue
from tests.crash.life import Life

REASON: Final = "the storage team knows of it"
ANY_WORD: Final = (Resolution.ROLLED_BACK, Resolution.APPLIED, Resolution.RESYNC)
Settle = Callable[[Life, Job], Awaitable[None]]


async def say_truth(life: Life, job: Job, words: tuple[Resolution, ...] = ANY_WORD) -> None:
    """Settles every open issue of the run by the first word that the world does not contradict."""
    for issue in await life.stage.deps.jobs.list_issues(job_id=job.id):
        if issue.kind == CANCELLED:
            await resume_job(life.stage.deps, job.id, Words(resume=True), actor="eva")
            return
        for word in words:
            with suppress(OmaError):
                await resolve_issue(life.stage.deps, issue.id, Said(word, "looked at it", actor="eva"))
                break


def saying(*words: Resolution) -> Settle:
    async def settle(life: Life, job: Job) -> None:
        await say_truth(life, job, words)

    return settle


async def give_up(life: Life, job: Job) -> None:
    """Content that nobody waits for any more; the run goes on with whatever else it has to do."""
    for issue in await life.stage.deps.jobs.list_issues(job_id=job.id):
        for word in (Resolution.RESYNC, Resolution.APPLIED, Resolution.ROLLED_BACK):
            with suppress(OmaError):
                await resolve_issue(life.stage.deps, issue.id, Said(word, "too long", actor="eva"))
                break


async def insist(life: Life, job: Job) -> None:
    """Resumes by force what may be passed so; whatever else stands open is settled by the truth."""
    try:
        await resume_job(life.stage.deps, job.id, Words(force=True, resume=True, reason=REASON), actor="eva")
    except OmaError:
        await say_truth(life, job)
