"""Sends changes, with a job id chosen by us where the endpoint takes one.

`customjobid` is taken by every asynchronous command though `listApis` hides it (`BaseAsyncCmd`,
`ApiServer.queueCommand`); servers that do not know it ignore it and answer with an id of their own. It makes a change
safe to send again: CloudStack queues a job of one id once.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any

from ossea import calls
from ossea.calls import Call
from ossea.errors import CloudStackError, ErrorKind
from ossea.jobs import JobPoller
from ossea.models import JobResult, JobStatus
from ossea.reading import Reader
from ossea.transport import Transport

NewId = Callable[[], str]


def new_uuid() -> str:
    return str(uuid.uuid4())


class Spent(StrEnum):
    """Who has used a job id up."""

    BY_US = "by us"
    """By the harmless call: whatever was to travel under this id can't be queued any more."""
    BY_ANOTHER = "by another"
    """A job of another command runs, or ran, under it: the call that it was meant for has arrived."""
    NOT_AT_ALL = "not at all"
    """The server gives jobs ids of its own."""


class Submitter:
    """Submits asynchronous commands and runs synchronous ones."""

    def __init__(self, transport: Transport, reader: Reader, jobs: JobPoller, new_id: NewId = new_uuid) -> None:
        self._transport = transport
        self._reader = reader
        self._jobs = jobs
        self._new_id = new_id
        self._honours: bool | None = None
        self._probe_lock = asyncio.Lock()

    async def submit(self, call: Call, job_id: str | None, expires_at: datetime | None) -> str:
        """Queues the command; returns the job's id: `job_id` where the endpoint honours it, else the server's.

        A job of that id and command which CloudStack has already is an earlier sending of this call, and its id is
        returned. One of another command means that the id was given up: `REFUSED`, as this call changed nothing.
        """
        return (await self._queue(call, job_id, expires_at))[0]

    async def submit_create(self, call: Call, job_id: str | None, expires_at: datetime | None) -> tuple[str, str]:
        """Likewise for a command that creates; also returns the new entity's id."""
        queued_id, answer = await self._queue(call, job_id, expires_at)
        entity_id = answer.get("id") or answer.get("jobinstanceid")
        if not isinstance(entity_id, str):
            raise CloudStackError(ErrorKind.BROKEN_ANSWER, call.command, "the answer does not name the new entity")
        return queued_id, entity_id

    async def spend(self, call: Call, job_id: str, expires_at: datetime | None) -> Spent:
        """Uses the id up by this call, which has to be harmless and of another command than the one that is given up.

        Once the id is known to CloudStack, no other call can be queued under it (`ApiServer.queueCommand`). Raises
        `CloudStackError` where that is not certain; the same may be asked again.
        """
        params = {**call.params, "customjobid": calls.check_job_id(job_id)}
        try:
            answer = await self._transport.change(call.command, params, expires_at)
        except CloudStackError as error:
            if not error.says_in_use(job_id):
                raise
        else:
            self._honours = answer.get("jobid") == job_id
            return Spent.BY_US if self._honours else Spent.NOT_AT_ALL
        job = await self._ask_what_it_does(call, job_id)
        return Spent.BY_US if job.command == call.command else Spent.BY_ANOTHER

    async def run(self, call: Call, expires_at: datetime | None) -> None:
        """A synchronous command; returns when it has succeeded."""
        answer = await self._transport.change(call.command, call.params, expires_at)
        if str(answer.get("success", "true")).lower() != "true":
            text = str(answer.get("displaytext") or "CloudStack answered success: false")
            raise CloudStackError(ErrorKind.FAILED, call.command, text)

    def forget_probe(self) -> None:
        """Another endpoint may answer the probe otherwise."""
        self._honours = None

    async def honours_custom_job_id(self) -> bool:
        """Whether the endpoint takes our job ids; every submission with one answers it for good.

        Asked by deleting a tag of a resource that does not exist: the command is queued unchecked, and its job fails
        without having touched anything (`DeleteTagsCmd` takes resource ids as plain text). Raises `CloudStackError`
        where it cannot be told.
        """
        async with self._probe_lock:
            if self._honours is None:
                probe = calls.delete_tags([self._new_id()], "UserVm", {"oma-probe": None})
                await self.submit(probe, self._new_id(), None)
            return bool(self._honours)

    async def _queue(self, call: Call, job_id: str | None, expires_at: datetime | None) -> tuple[str, dict[str, Any]]:
        params = dict(call.params)
        if job_id is not None:
            params["customjobid"] = calls.check_job_id(job_id)
        try:
            answer = await self._transport.change(call.command, params, expires_at)
        except CloudStackError as error:
            if job_id is None or not error.says_in_use(job_id):
                raise
            self._honours = True
            return job_id, await self._adopt(call, job_id)
        queued_id = answer.get("jobid")
        if not isinstance(queued_id, str) or not queued_id:
            raise CloudStackError(ErrorKind.BROKEN_ANSWER, call.command, "the answer names no job")
        if job_id is not None:
            self._honours = queued_id == job_id
        self._jobs.submitted(queued_id, call.command)
        return queued_id, answer

    async def _adopt(self, call: Call, job_id: str) -> dict[str, Any]:
        """The id is taken: by this very call, or by somebody who gave it up."""
        job = await self._ask_what_it_does(call, job_id)
        if job.command != call.command:
            text = f"the job id {job_id} was spent on {job.command}; nothing was queued"
            raise CloudStackError(ErrorKind.REFUSED, call.command, text)
        self._jobs.submitted(job_id, call.command)
        return _adopted_answer(job)

    async def _ask_what_it_does(self, call: Call, job_id: str) -> JobResult:
        try:
            job = await self._reader.query_job(job_id)
        except CloudStackError as error:
            text = f"a job {job_id} exists already, and it could not be asked what it does ({error.text})"
            raise CloudStackError(ErrorKind.NO_ANSWER, call.command, text) from None
        if job.status is JobStatus.ABSENT or not job.command:
            text = f"a job {job_id} exists already, and CloudStack does not say what it does"
            raise CloudStackError(ErrorKind.NO_ANSWER, call.command, text)
        return job


def _adopted_answer(job: JobResult) -> dict[str, Any]:
    return {"jobid": job.id, "id": job.instance_id}
