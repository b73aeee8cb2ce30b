"""`POST /api/v1/failover/{vm_name}/cleanup-failed`: the main job."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aiohttp import web

from appliance.web import correlation_id_of
from oma.domain.errors import Code
from oma.http.body import read_cleanup, read_json_object
from oma.http.described import answers_json, in_header, in_path, operation
from oma.http.prefer import Waiting, read_prefer
from oma.http.problems import CLEANUP_ROUTE
from oma.http.query import check_names, invalid
from oma.http.site import Route, Site, answer_json, site_of
from oma.service.answers import accepted_answer, cleanup_answer, dry_run_answer, failure_of
from oma.service.cleanup import Waited, find_run_of_key, submit_cleanup, wait_for_job
from oma.service.dry_run import dry_run
from oma.service.queries import get_job_view

LONGEST_KEY: Final = 255
PREFER: Final = in_header("Prefer", "respond-async: answer at once. wait=N: answer after N seconds at the latest.")
KEY: Final = in_header(
    "Idempotency-Key", "The same key and body get the answer of the run that they began, without a second one."
)
ACCEPTED: Final = {
    **answers_json("CleanupAccepted", "The run goes on; Location shows it."),
    "headers": {"Location": {"schema": {"type": "string"}, "description": "The job's address."}},
}


async def clean_up(request: web.Request) -> web.Response:
    site = site_of(request)
    check_names(request, ())
    body = await read_json_object(request)
    asked = read_cleanup(body, request.match_info["vm_name"], correlation_id_of(request))
    waiting = read_prefer(request.headers.getall("Prefer", []), site.sync_wait_s)
    key = read_key(request)
    if asked.dry_run:
        # It leaves nothing behind that a key could name, but the key of a run is not for it.
        await find_run_of_key(site.deps, asked, key)
        shown = await dry_run(site.deps, asked)
        return answer_json(dry_run_answer(asked, shown.plan, shown.estimate, site.deps.clock.now()))
    until = site.deps.clock.monotonic() + waiting.wait_s
    job = await submit_cleanup(site.deps, asked, key, patience_s=waiting.wait_s)
    # A stopping daemon lets nobody wait: the job is journaled, and its address tells the rest.
    wait_s = 0.0 if site.deps.stopping.is_set() else max(0.0, until - site.deps.clock.monotonic())
    return await answer_run(site, await wait_for_job(site.deps, job.id, wait_s), waiting)


async def answer_run(site: Site, waited: Waited, waiting: Waiting) -> web.Response:
    """The run's end, or where it goes on. Raises `CleanupFailed` for one that ended badly or is overdue."""
    job, now = waited.job, site.deps.clock.now()
    if waited.ended:
        view = await get_job_view(site.deps, job.id)
        return answer_json(cleanup_answer(view.job, view.steps, view.actions, now))
    if waited.overdue is not None:
        raise failure_of(job, {**waited.overdue, "code": Code.VOLUME_DAEMON_TIMEOUT.value})
    accepted = accepted_answer(job, now)
    applied = {"Preference_Applied": waiting.applied} if waiting.applied else {}
    return answer_json(accepted, HTTPStatus.ACCEPTED, Location=accepted["location"], **applied)


def read_key(request: web.Request) -> str | None:
    """`Idempotency-Key`, kept with the run that it began."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (1 <= len(key) <= LONGEST_KEY and key.isascii() and key.isprintable()):
        raise invalid("Idempotency-Key", f"Idempotency-Key must be 1 to {LONGEST_KEY} printable ASCII characters.")
    return key


ROUTES: Final = (
    Route(
        "POST",
        "/api/v1/failover/{vm_name}/cleanup-failed",
        clean_up,
        operation(
            "cleanUp",
            "Put a VM right after a failed failover",
            {
                200: {
                    "description": "The run has ended well, or the plan of a dry run.",
                    "content": {
                        "application/json": {
                            "schema": {
                                "oneOf": [
                                    {"$ref": "#/components/schemas/CleanupDone"},
                                    {"$ref": "#/components/schemas/DryRun"},
                                ]
                            }
                        }
                    },
                },
                202: ACCEPTED,
            },
            tag="clean-up",
            parameters=(
                in_path("vm_name", "The VM's name, URL-encoded; it matches only letter by letter."),
                PREFER,
                KEY,
                in_header("X-Correlation-ID", "Found again in logs, journal and answer."),
            ),
            problems=(403, 404, 409, 413, 415, 422, 500, 502, 503, 504),
            body="CleanupRequest",
        ),
        pattern="/api/v1/failover/{vm_name:.*}/cleanup-failed",
        name=CLEANUP_ROUTE,
    ),
)
