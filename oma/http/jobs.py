"""`GET /api/v1/jobs` and its parts: the JobLog."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aiohttp import web

from oma.domain.jobs import OPERATION
from oma.domain.states import JobState
from oma.http.body import read_cancel, read_json_object, read_resume
from oma.http.cleanups import ACCEPTED, KEY, PREFER, answer_run, read_key
from oma.http.described import CURSOR, LIMIT, answers_json, in_path, in_query, operation
from oma.http.prefer import read_prefer
from oma.http.query import check_names, read_choice, read_limit, read_text, read_time
from oma.http.schemas import action_detail, as_list, job_detail, job_entry, log_entry, step_entry
from oma.http.shapes import TIME
from oma.http.site import Route, answer_json, site_of
from oma.ports import JobFilter
from oma.service import control, queries
from oma.service.cleanup import wait_for_job

FILTERS: Final = ("vm", "context_id", "status", "operation", "since", "until", "correlation_id")
STATUSES: Final = {**{state.value: state.value for state in JobState}, "pending": JobState.QUEUED.value}
"""What may be asked for; `pending` is the JobLog's own word for a queued job."""
JOB_ID: Final = in_path("job_id", "The job's id.")


async def list_jobs(request: web.Request) -> web.Response:
    check_names(request, (*FILTERS, "limit", "cursor"))
    page = await queries.list_jobs(
        site_of(request).deps, read_filter(request), read_limit(request), read_text(request, "cursor")
    )
    return answer_json(as_list((job_entry(job) for job in page.items), page.next_cursor))


def read_filter(request: web.Request) -> JobFilter:
    status = read_choice(request, "status", STATUSES)
    return JobFilter(
        vm=read_text(request, "vm"),
        context_id=read_text(request, "context_id"),
        status=None if status is None else STATUSES[status],
        operation=read_text(request, "operation"),
        since=read_time(request, "since"),
        until=read_time(request, "until"),
        correlation_id=read_text(request, "correlation_id"),
    )


async def show_job(request: web.Request) -> web.Response:
    check_names(request, ())
    view = await queries.get_job_view(site_of(request).deps, request.match_info["job_id"])
    return answer_json(job_detail(view))


async def list_steps(request: web.Request) -> web.Response:
    check_names(request, ())
    view = await queries.get_job_view(site_of(request).deps, request.match_info["job_id"])
    return answer_json(as_list(step_entry(step) for step in view.steps))


async def list_actions(request: web.Request) -> web.Response:
    check_names(request, ())
    view = await queries.get_job_view(site_of(request).deps, request.match_info["job_id"])
    return answer_json(as_list(action_detail(action) for action in view.actions))


async def list_log(request: web.Request) -> web.Response:
    check_names(request, ("limit", "cursor"))
    page = await queries.list_log(
        site_of(request).deps, request.match_info["job_id"], read_limit(request), read_text(request, "cursor")
    )
    return answer_json(as_list((log_entry(line) for line in page.items), page.next_cursor))


async def resume_job(request: web.Request) -> web.Response:
    """The same as `resume` in the body of the main job, by the job's id."""
    site = site_of(request)
    check_names(request, ())
    words = read_resume(await read_json_object(request))
    waiting = read_prefer(request.headers.getall("Prefer", []), site.sync_wait_s)
    job = await control.resume_job(site.deps, request.match_info["job_id"], words, idempotency_key=read_key(request))
    wait_s = 0.0 if site.deps.stopping.is_set() else waiting.wait_s
    return await answer_run(site, await wait_for_job(site.deps, job.id, wait_s), waiting)


async def cancel_job(request: web.Request) -> web.Response:
    """Answers at once; the run stops between two actions, and its own address tells how it ended."""
    site = site_of(request)
    check_names(request, ())
    reason = read_cancel(await read_json_object(request))
    job = await control.cancel_job(site.deps, request.match_info["job_id"], reason)
    over = job.state is JobState.CANCELLED
    status = HTTPStatus.OK if over else HTTPStatus.ACCEPTED
    return answer_json(job_entry(job), status, Location=f"/api/v1/jobs/{job.id}")


ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/jobs",
        list_jobs,
        operation(
            "listJobs",
            "The jobs, newest first",
            {200: answers_json("JobList", "A page of jobs.")},
            tag="jobs",
            parameters=(
                in_query("vm", "Only jobs of the VM with this name."),
                in_query("context_id", "Only jobs of this VM context."),
                in_query(
                    "status",
                    "Only jobs with this status; pending means queued.",
                    {"type": "string", "enum": list(STATUSES)},
                ),
                in_query("operation", f"Only jobs of this operation, such as {OPERATION}."),
                in_query("since", "Only jobs created at this time or later.", TIME),
                in_query("until", "Only jobs created before this time.", TIME),
                in_query("correlation_id", "Only jobs of this correlation id."),
                LIMIT,
                CURSOR,
            ),
            problems=(422, 503),
        ),
    ),
    Route(
        "GET",
        "/api/v1/jobs/{job_id}",
        show_job,
        operation(
            "showJob",
            "One job with plan, steps, actions and issues",
            {200: answers_json("JobDetail", "The job.")},
            tag="jobs",
            parameters=(JOB_ID,),
            problems=(404, 422, 503),
        ),
    ),
    Route(
        "GET",
        "/api/v1/jobs/{job_id}/steps",
        list_steps,
        operation(
            "listSteps",
            "A job's phases",
            {200: answers_json("StepList", "One step per phase.")},
            tag="jobs",
            parameters=(JOB_ID,),
            problems=(404, 422, 503),
        ),
    ),
    Route(
        "GET",
        "/api/v1/jobs/{job_id}/actions",
        list_actions,
        operation(
            "listActions",
            "Every call of a job that changed, or was to change, the world",
            {200: answers_json("ActionList", "The actions in order.")},
            tag="jobs",
            parameters=(JOB_ID,),
            problems=(404, 422, 503),
        ),
    ),
    Route(
        "GET",
        "/api/v1/jobs/{job_id}/log",
        list_log,
        operation(
            "listLog",
            "A job's log, oldest line first",
            {200: answers_json("LogList", "A page of lines.")},
            tag="jobs",
            parameters=(JOB_ID, LIMIT, CURSOR),
            problems=(404, 422, 503),
        ),
    ),
    Route(
        "POST",
        "/api/v1/jobs/{job_id}/resume",
        resume_job,
        operation(
            "resumeJob",
            "Go on with a parked run",
            {
                200: answers_json("CleanupDone", "The run has ended well."),
                202: ACCEPTED,
            },
            tag="jobs",
            parameters=(JOB_ID, PREFER, KEY),
            problems=(403, 404, 409, 413, 415, 422, 500, 502, 503, 504),
            body="ResumeRequest",
        ),
    ),
    Route(
        "POST",
        "/api/v1/jobs/{job_id}/cancel",
        cancel_job,
        operation(
            "cancelJob",
            "Stop a run between two actions: it goes back before the first revert, and parks after it",
            {
                200: answers_json("Job", "The run is cancelled."),
                202: {
                    **answers_json("Job", "It stops at its next safe point; Location shows it."),
                    "headers": {"Location": {"schema": {"type": "string"}, "description": "The job's address."}},
                },
            },
            tag="jobs",
            parameters=(JOB_ID,),
            problems=(403, 404, 413, 415, 422, 503),
            body="CancelRequest",
        ),
    ),
)
