"""What CloudStack still knows of a call that may have been sent: its job, and whether it can arrive at all any more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from ossea.models import JobStatus
from volume_daemon.models import FaultKind, OperationError, OperationType
from volume_daemon.server.cloud import spend_id
from volume_daemon.server.link import Clouds
from volume_daemon.server.records import Entry, Figures
from volume_daemon.server.withdrawal import Stopped

TAG_COMMANDS: Final = frozenset({"createTags", "deleteTags"})
"""What ids that are given up are spent on."""


class Traces:
    """All times are the server's, for ours may have been set meanwhile."""

    def __init__(self, cloud: Clouds, figures: Figures, now: Callable[[], datetime]) -> None:
        self._cloud = cloud
        self._figures = figures
        self._now = now

    async def find_job(self, entry: Entry) -> str | None:
        """The call's job, where CloudStack knows it; deleting has none.

        Raises `CloudStackError`, and `Stopped` where its id was spent on something else, so that it can never arrive.
        """
        if entry.type is OperationType.DELETE or entry.job_id is None:
            return None
        job = await self._cloud().query_job(entry.job_id)
        if job.command in TAG_COMMANDS:
            text = f"The id of the call was given up, and spent on {job.command}; it never arrived, and never will."
            raise Stopped(OperationError("request_id_spent", FaultKind.REFUSED, text))
        return None if job.status is JobStatus.ABSENT else job.id

    async def spend_id(self, entry: Entry) -> bool:
        """Whether the call's id is used up from now on: its job is found, or it never arrives. Deleting has none.

        Raises `CloudStackError`.
        """
        if entry.type is OperationType.DELETE or entry.request_id is None:
            return False
        return await spend_id(self._cloud(), entry.request_id)

    def bound(self, entry: Entry) -> Entry:
        """An entry whose row does not say (any more, or believably) until when its call may arrive: sent before now."""
        offset = self._cloud().server_offset
        if offset is None:
            return entry
        latest = self._now() + offset + timedelta(seconds=self._figures.expires_s)
        if entry.expires_at is None or (entry.is_condemned and entry.expires_at > latest):
            return replace(entry, expires_at=latest)
        return entry

    def may_arrive(self, entry: Entry) -> bool:
        """Whether a sending may yet be accepted; where the server's clock is not known, it may."""
        offset = self._cloud().server_offset
        if entry.remote_job_id is not None:
            return False
        if offset is None or entry.expires_at is None:
            return True
        return self._now() + offset < entry.expires_at + timedelta(seconds=self._figures.expiry_margin_s)

    def is_remembered(self, entry: Entry) -> bool:
        """Whether CloudStack would still know the job if it had arrived (its rows live `job.expire.minutes`)."""
        offset = self._cloud().server_offset
        if offset is None or entry.expires_at is None:
            return False
        last_sent_at = entry.expires_at - timedelta(seconds=self._figures.expires_s)
        return (self._now() + offset - last_sent_at).total_seconds() < self._figures.job_memory_s
