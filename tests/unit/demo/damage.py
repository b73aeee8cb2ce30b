"""Ways to damage the history of a good run; each gives a new history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from oma.demo.invariants import Call, History

ELSEWHERE = "0f000000-0000-4000-8000-00000000000f"


def first(history: History, command: str) -> Call:
    return next(call for call in history.calls if call.command == command)


def with_call(history: History, command: str, **fields: Any) -> History:
    """The first call of this command as it might have been."""
    wanted = first(history, command)
    return replace(history, calls=[replace(one, **fields) if one is wanted else one for one in history.calls])


def with_sighting(history: History, command: str, **fields: Any) -> History:
    return with_call(history, command, seen=replace(first(history, command).seen, **fields))


def with_one_more(history: History, command: str, **fields: Any) -> History:
    again = replace(first(history, command), number=len(history.calls) + 1, **fields)
    return replace(history, calls=[*history.calls, again])


def with_end(history: History, command: str, *, succeeded: bool) -> History:
    job_id = first(history, command).job_id or ""
    return replace(history, ends={**history.ends, job_id: replace(history.ends[job_id], succeeded=succeeded)})


def with_job(history: History, **fields: Any) -> History:
    jobs = {job.id: replace(job, **fields) for job in history.journal.jobs.values()}
    return replace(history, journal=replace(history.journal, jobs=jobs))


def with_second_run(history: History) -> History:
    (job,) = history.journal.jobs.values()
    queued = next(row for row in history.journal.events if row["type"] == "job_queued")
    other = {**queued, "seq": queued["seq"], "job_id": "another"}
    jobs = {"another": replace(job, id="another"), job.id: job}
    return replace(history, journal=replace(history.journal, jobs=jobs, events=[other, *history.journal.events]))


def with_volume(history: History, **fields: Any) -> History:
    volume_id = history.vms[0].volumes[0].volume_id
    volumes = {**history.rest.volumes, volume_id: replace(history.rest.volumes[volume_id], **fields)}
    return replace(history, rest=replace(history.rest, volumes=volumes))


def with_marker(history: History) -> History:
    (job_id,) = history.journal.jobs
    marks = {history.vms[0].volumes[0].volume_id: f"oma/{job_id}"}
    return replace(history, rest=replace(history.rest, marks=marks))


def with_unreadable(history: History, **fields: Any) -> History:
    row = {"id": "torn", "context_id": history.vms[0].context_id, **fields}
    return replace(history, journal=replace(history.journal, unreadable=[row]))


def with_lower_fence(history: History) -> History:
    return with_call(history, "attachVolume", fence=0)
