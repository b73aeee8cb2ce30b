"""`GET /api/v1/issues` and `POST /api/v1/issues/{id}/resolve`: what only a person can settle."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from oma.domain.errors import OmaError
from oma.domain.issues import Severity
from oma.domain.resolving import SPOKEN
from oma.domain.spoken import read_reason
from oma.domain.states import IssueState
from oma.http.body import read_json_object
from oma.http.described import CURSOR, LIMIT, answers_json, in_path, in_query, operation
from oma.http.query import check_names, invalid, read_choice, read_limit, read_text
from oma.http.schemas import as_list, issue_entry, resolved_entry
from oma.http.site import Route, answer_json, site_of
from oma.ports import IssueFilter
from oma.service import issues
from oma.service.issues import Said

ANY: Final = "all"
STATES: Final = (*(one.value for one in IssueState), ANY)
FILTERS: Final = ("state", "vm", "context_id", "job_id", "severity", "kind", "q")
FIELDS: Final = ("resolution", "notes", "insist", "reason")
ISSUE_ID: Final = in_path("issue_id", "The issue's id.")


async def list_issues(request: web.Request) -> web.Response:
    check_names(request, (*FILTERS, "limit", "cursor"))
    page = await issues.list_issues(
        site_of(request).deps, read_filter(request), read_limit(request), read_text(request, "cursor")
    )
    return answer_json(as_list((issue_entry(issue) for issue in page.items), page.next_cursor))


def read_filter(request: web.Request) -> IssueFilter:
    """Open ones where nothing is said of the state."""
    state = read_choice(request, "state", STATES) or IssueState.OPEN.value
    return IssueFilter(
        state=None if state == ANY else state,
        vm=read_text(request, "vm"),
        context_id=read_text(request, "context_id"),
        job_id=read_text(request, "job_id"),
        severity=read_choice(request, "severity", [one.value for one in Severity]),
        kind=read_text(request, "kind"),
        q=read_text(request, "q"),
    )


async def show_next_issue(request: web.Request) -> web.Response:
    check_names(request, ())
    return answer_json(issue_entry(await issues.get_next_issue(site_of(request).deps)))


async def show_issue(request: web.Request) -> web.Response:
    check_names(request, ())
    return answer_json(issue_entry(await issues.get_issue(site_of(request).deps, request.match_info["issue_id"])))


async def resolve_issue(request: web.Request) -> web.Response:
    check_names(request, ())
    said = read_said(await read_json_object(request))
    outcome = await issues.resolve_issue(site_of(request).deps, request.match_info["issue_id"], said)
    return answer_json(resolved_entry(outcome))


def read_said(body: dict[str, Any]) -> Said:
    """A resolution and its notes, both needed. Raises `invalid_request`."""
    for name in body:
        if name not in FIELDS:
            raise invalid(name[:64], f"There is no field {name[:64]!r}; possible: {', '.join(FIELDS)}.", list(FIELDS))
    spoken = body.get("resolution")
    if not isinstance(spoken, str) or spoken not in SPOKEN:
        raise invalid("resolution", f"resolution must be one of: {', '.join(SPOKEN)}.", list(SPOKEN))
    insist = body.get("insist")
    if not isinstance(insist, bool | None):
        raise invalid("insist", "insist must be true or false.", "true or false")
    if body.get("reason") is not None and not insist:
        raise invalid("reason", "reason is for insist; what you found belongs into notes.", "with insist only")
    return Said(SPOKEN[spoken], _read_notes(body.get("notes")), insist=bool(insist))


def _read_notes(value: Any) -> str:
    """As strict as a reason: it stands in the audit for ever."""
    try:
        return read_reason(value)
    except OmaError as error:
        sentence = "notes must say in one line what you found and did; it stands in the audit."
        raise invalid("notes", sentence, error.fields.get("allowed")) from None


ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/issues",
        list_issues,
        operation(
            "listIssues",
            "What only a person can settle, newest first",
            {200: answers_json("IssueList", "A page of issues.")},
            tag="issues",
            parameters=(
                in_query("state", "open (default), resolved or all.", {"type": "string", "enum": list(STATES)}),
                in_query("vm", "Only issues of the VM with this name."),
                in_query("context_id", "Only issues of this VM context."),
                in_query("job_id", "Only issues of this job."),
                in_query(
                    "severity",
                    "Only issues of this severity.",
                    {"type": "string", "enum": [one.value for one in Severity]},
                ),
                in_query("kind", "Only issues of this kind: an action's, a phase's or the watcher's."),
                in_query("q", "Only issues whose title holds this text."),
                LIMIT,
                CURSOR,
            ),
            problems=(422, 503),
        ),
    ),
    Route(
        "GET",
        "/api/v1/issues/next",
        show_next_issue,
        operation(
            "showNextIssue",
            "The open issue to settle first: by severity, then by when it is due",
            {200: answers_json("Issue", "The issue.")},
            tag="issues",
            problems=(404, 422, 503),
        ),
    ),
    Route(
        "GET",
        "/api/v1/issues/{issue_id}",
        show_issue,
        operation(
            "showIssue",
            "One issue with evidence and guidance",
            {200: answers_json("Issue", "The issue.")},
            tag="issues",
            parameters=(ISSUE_ID,),
            problems=(404, 422, 503),
        ),
    ),
    Route(
        "POST",
        "/api/v1/issues/{issue_id}/resolve",
        resolve_issue,
        operation(
            "resolveIssue",
            "Say how it stands; after the VM's last open issue its parked run goes on",
            {200: answers_json("IssueResolved", "The word is taken.")},
            tag="issues",
            parameters=(ISSUE_ID,),
            problems=(403, 404, 409, 413, 415, 422, 503),
            body="ResolveRequest",
        ),
    ),
)
