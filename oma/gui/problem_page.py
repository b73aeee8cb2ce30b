"""Problem documents, shown as pages to people who asked for a page.

The status and the code are decided where problem documents are made; here they only get human words.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from aiohttp.typedefs import Middleware
from multidict import CIMultiDict

from oma.domain.errors import TITLES, Code
from oma.domain.verdict import SOURCE_OFF
from oma.gui import urls, words
from oma.gui.evidence import evidence_lines
from oma.gui.rendering import Renderer

PROBLEM_TYPE: Final = "application/problem+json"
OWN_HEADERS: Final = frozenset({"content-type", "content-length", "transfer-encoding"})
NO_SUCH_ADDRESS: Final = "not_found"
"""The code of an address that no route has; an unknown VM or job has a code of its own."""
API_PREFIX: Final = "/api/"
TITLE_OF_CODE: Final = {code.value: title for code, title in TITLES.items()}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class ShownReason:
    title: str
    sentence: str
    next_step: str
    evidence: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ShownProblem:
    """A problem in human words. `back_url` leads to where the person can go on."""

    status: int
    title: str
    sentence: str
    next_step: str
    code: str
    correlation_id: str
    reasons: tuple[ShownReason, ...]
    back_url: str
    back_words: str
    job_url: str | None
    source_off: bool
    replica: words.Badge | None


def show_problems_as_pages(renderer: Renderer) -> Middleware:
    """The outermost middleware: API clients keep their documents, browsers on our pages get a page."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not wants_page(request):
            return await handler(request)
        response = await handler(request)
        if response.content_type != PROBLEM_TYPE or not isinstance(response, web.Response):
            return response
        problem = build_problem(_document(response), response.status, request.path)
        page = renderer.page("problem.html", status=response.status, problem=problem)
        for name, value in CIMultiDict(response.headers).items():
            if name.lower() not in OWN_HEADERS and name not in page.headers:
                page.headers[name] = value
        return page

    return middleware


def wants_page(request: web.Request) -> bool:
    """Whether a person with a browser asked, and not for the API."""
    return not request.path.startswith(API_PREFIX) and "text/html" in request.headers.get("Accept", "")


def build_problem(document: dict[str, Any], status: int, path: str) -> ShownProblem:
    code = str(document.get("code", ""))
    told = str(document.get("next", ""))
    source_off = told.startswith(SOURCE_OFF)
    sentence, next_step = str(document.get("detail", "")), told.removeprefix(SOURCE_OFF).strip()
    if code == NO_SUCH_ADDRESS:
        sentence = "There is no page at this address."
        next_step = "The estate lists every VM."
    back_url, back_words = _way_back(path)
    job_id = document.get("job_id")
    return ShownProblem(
        status=status,
        title=str(document.get("title", "Something went wrong")),
        sentence=sentence,
        next_step=next_step,
        code=code,
        correlation_id=str(document.get("correlation_id", "")),
        reasons=_further_reasons(document),
        back_url=back_url,
        back_words=back_words,
        job_url=urls.job_url(job_id) if isinstance(job_id, str) and code != Code.JOB_NOT_FOUND.value else None,
        source_off=source_off,
        replica=words.REPLICA_BADGES.get(str(document.get("replica"))),
    )


def _further_reasons(document: dict[str, Any]) -> tuple[ShownReason, ...]:
    """All refusals with their evidence; the document's own sentence is that of the first."""
    refusals = document.get("refusals")
    if not isinstance(refusals, list):
        return ()
    return tuple(
        ShownReason(
            title=TITLE_OF_CODE.get(str(refusal.get("code")), "Another reason"),
            sentence=str(refusal.get("detail", "")),
            next_step=str(refusal.get("next", "")),
            evidence=evidence_lines(refusal.get("evidence") or {}, str(refusal.get("detail", ""))),
        )
        for refusal in refusals
        if isinstance(refusal, dict)
    )


def _way_back(path: str) -> tuple[str, str]:
    if path.startswith("/vms/"):
        return path, "Look at the plan again"
    return "/", "Back to the estate"


def _document(response: web.Response) -> dict[str, Any]:
    try:
        document = json.loads(response.text or "")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
