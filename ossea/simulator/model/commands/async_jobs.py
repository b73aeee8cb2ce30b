"""queryAsyncJobResult and listAsyncJobs, the windows on `async_job`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ossea.simulator.model.commands.base import SyncCommand
from ossea.simulator.model.entities import Job, JobStatus
from ossea.simulator.model.errors import invalid_entity, invalid_value
from ossea.simulator.model.listing import page_json
from ossea.simulator.model.params import Params
from ossea.simulator.model.world import World

JobView = Callable[[Job], dict[str, Any]]


class QueryAsyncJobResult(SyncCommand):
    name = "queryAsyncJobResult"
    required = ("jobid",)

    def __init__(self, view: JobView) -> None:
        self._view = view

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        job = world.jobs.find(params.get("jobid").lower())
        if job is None:
            raise invalid_entity(self.name, "jobid", params.get("jobid"))
        return self._view(job)


class ListAsyncJobs(SyncCommand):
    """Oldest first; newer servers list pending jobs only (setting `list_pending_jobs_only`)."""

    name = "listAsyncJobs"
    optional = ("page", "pagesize", "listall", "keyword", "account", "domainid", "isrecursive", "startdate")

    def __init__(self, view: JobView) -> None:
        self._view = view

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        since = _start(params)
        pending_only = world.settings.list_pending_jobs_only
        rows = [
            job
            for job in world.jobs.rows.values()
            if job.created >= since and not (pending_only and job.status != JobStatus.PENDING)
        ]
        return page_json("asyncjobs", rows, params, world.settings, self._view)


def _start(params: Params) -> float:
    value = params.find("startdate")
    if value is None:
        return 0.0
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise invalid_value(params.command, "startdate", value) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
