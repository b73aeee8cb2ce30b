"""The pages: the estate at `/`, a confirmation that shows the plan, and a job's progress.

They work through the service functions only; whatever goes wrong leaves as an `OmaError` and comes back from the
application's problem middleware as a document that is shown as a page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from aiohttp import web

from appliance.web import correlation_id_of
from oma.domain.controls import Pause
from oma.domain.errors import Code, OmaError, Refused
from oma.domain.events import EventType
from oma.domain.jobs import CleanupRequest
from oma.domain.spoken import LONGEST_REASON
from oma.domain.words import SILENT, Words
from oma.gui.confirm import build_confirmation
from oma.gui.estate import build_estate, read_filters
from oma.gui.offers import read_form
from oma.gui.problem_page import show_problems_as_pages
from oma.gui.progress import build_progress
from oma.gui.rendering import Renderer
from oma.gui.urls import job_url
from oma.service import cleanup, control, pausing, queries
from oma.service.deps import Deps
from oma.service.queries import VmView

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

FOREVER: Final = "public, max-age=31536000, immutable"
REQUESTED_BY: Final = "page"
RENDERER: Final = Renderer()
"""Loaded with the module: no file is read once the event loop runs."""
JOB_EVENTS: Final = " ".join(EventType)
ESTATE_EVENTS: Final = " ".join(kind for kind in EventType if kind.startswith(("job_", "step_", "pause")))


def add_routes(app: web.Application, deps: Deps) -> None:
    """Adds the pages, their static files, and the middleware that shows problems in human words.

    Call it after the application has its other middlewares: this one stands outside of them.
    """
    pages = _Pages(deps, RENDERER)
    app.router.add_get("/", pages.show_estate)
    app.router.add_get("/vms/{context_id}/cleanup", pages.show_confirmation)
    app.router.add_post("/vms/{context_id}/cleanup", pages.start_cleanup)
    app.router.add_get("/jobs/{job_id}", pages.show_job)
    app.router.add_post("/jobs/{job_id}/resume", pages.resume_job)
    app.router.add_get("/static/{name}", pages.show_asset)
    app.middlewares.insert(0, show_problems_as_pages(pages.renderer))


class _Pages:
    """The handlers; each parses, calls the service once or twice, and renders."""

    def __init__(self, deps: Deps, renderer: Renderer) -> None:
        self.deps = deps
        self.renderer = renderer

    async def show_estate(self, request: web.Request) -> web.Response:
        filters = read_filters(request.query)
        estate = await build_estate(self.deps, filters)
        pauses = await pausing.list_pauses(self.deps)
        return self.renderer.page(
            "estate.html",
            estate=estate,
            filters=filters,
            event_types=ESTATE_EVENTS,
            pauses=pauses,
            outages=self.deps.brakes.outages,
        )

    async def show_confirmation(self, request: web.Request) -> web.Response:
        vm = await queries.get_vm_of_context(self.deps, request.match_info["context_id"])
        return await self._confirmation(vm, _asked(request, vm, SILENT))

    async def start_cleanup(self, request: web.Request) -> web.Response:
        """Shows the plan under the words that were said, or runs exactly the plan that was shown."""
        vm = await queries.get_vm_of_context(self.deps, request.match_info["context_id"])
        form = await request.post()
        asked = _asked(request, vm, read_form(form))
        if form.get("look"):
            return await self._confirmation(vm, asked)
        expect_plan = form.get("expect_plan")
        if not isinstance(expect_plan, str) or not expect_plan:
            raise OmaError(
                Code.INVALID_REQUEST,
                "The form does not say which plan was confirmed; open the confirmation page again.",
                field="expect_plan",
            )
        try:
            # Somebody looks at the browser: a volume in transition is shown, not waited for.
            job = await cleanup.submit_cleanup(self.deps, replace(asked, expect_plan=expect_plan), patience_s=0.0)
        except Refused as refused:
            if refused.code is not Code.PLAN_STALE:
                raise
            return await self._confirmation(vm, asked, refused)
        except OmaError as error:
            running = await self._same_plan_running(error, expect_plan)
            if running is None:
                raise
            return _see_other(job_url(running))
        return _see_other(job_url(job.id))

    async def _confirmation(self, vm: VmView, asked: CleanupRequest, stale: Refused | None = None) -> web.Response:
        confirmation = await build_confirmation(self.deps, vm, replace(asked, dry_run=True), stale)
        pauses = await self._pauses_of(vm.records.context.context_id)
        return self.renderer.page(
            "confirm.html",
            confirmation=confirmation,
            longest_reason=LONGEST_REASON,
            pauses=pauses,
            outages=self.deps.brakes.outages,
        )

    async def show_job(self, request: web.Request) -> web.Response:
        progress = await build_progress(self.deps, request.match_info["job_id"])
        pauses = await self._pauses_of(progress.job.context_id)
        return self.renderer.page(
            "job.html",
            progress=progress,
            event_types=JOB_EVENTS,
            longest_reason=LONGEST_REASON,
            pauses=pauses,
            outages=self.deps.brakes.outages,
        )

    async def _pauses_of(self, context_id: str) -> list[Pause]:
        """Those that keep this VM's runs from going on."""
        return [one for one in await pausing.list_pauses(self.deps) if one.what.covers(context_id)]

    async def resume_job(self, request: web.Request) -> web.Response:
        """A parked run goes on, with force where a person said so."""
        words = read_form(await request.post(), resume=True)
        job = await control.resume_job(self.deps, request.match_info["job_id"], words, actor=REQUESTED_BY)
        return _see_other(job_url(job.id))

    async def show_asset(self, request: web.Request) -> web.Response:
        asset = self.renderer.find_asset(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        return web.Response(
            body=asset.body,
            content_type=asset.content_type,
            charset="utf-8",
            headers={"X-Content-Type-Options": "nosniff", "Cache-Control": FOREVER},
        )

    async def _same_plan_running(self, error: OmaError, expect_plan: str) -> str | None:
        """The id of the run that a second click of the same form meets."""
        job_id = error.fields.get("job_id")
        if error.code is not Code.CLEANUP_IN_PROGRESS or not isinstance(job_id, str):
            return None
        job = await queries.get_job(self.deps, job_id)
        return job.id if job.request.expect_plan == expect_plan else None


def _asked(request: web.Request, vm: VmView, words: Words) -> CleanupRequest:
    context = vm.records.context
    return CleanupRequest(
        vm_name=context.vm_name,
        context_id=context.context_id,
        requested_by=REQUESTED_BY,
        correlation_id=correlation_id_of(request),
        words=words,
    )


def _see_other(url: str) -> web.Response:
    return web.Response(status=303, headers={"Location": url, "Cache-Control": "no-store"})
