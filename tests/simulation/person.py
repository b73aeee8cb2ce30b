"""The people around a run: who asks for it, and who settles what only a person can settle, by what is true."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeVar

from database.tables import oma_issues
from oma.demo.invariants import Violation
from oma.domain.issues import CANCELLED, FOREIGN_MARKED, SELF_CLOSING_KINDS
from oma.domain.jobs import CleanupRequest, Job
from oma.domain.resolving import Resolution
from oma.domain.states import JobState
from oma.domain.words import Words
from oma.domain.world import MARK_KEY
from oma.service.cleanup import submit_cleanup
from oma.service.control import cancel_job, resume_job
from oma.service.deps import Deps
from oma.service.epochs import build_restored_issue
from oma.service.issues import Said, resolve_issue
from tests.fakes.invariants import rest_violations
from tests.fakes.scenario import BrokenVm
from tests.simulation.asking import ask_a_daemon
from tests.simulation.mending import mend, why_not_clean
from tests.simulation.scene import Scene

T = TypeVar("T")

REST = frozenset({JobState.COMPLETED, JobState.PARKED, JobState.FAILED, JobState.CANCELLED})
AGAIN = frozenset({JobState.FAILED, JobState.CANCELLED})
"""Ends after which a person asks for another run."""
ATTEMPTS = 12
"""Times that a person asks, or settles what is open, before he leaves it for tomorrow."""
LOOK_S = 15.0
PATIENCE_S = 400_000.0
"""Longest time that anybody waits for a run, more than four days."""
HOPELESS = 3
"""After so many times that a word was taken in vain he rather cancels the run."""
FORCES = 0.2
"""How often a person would rather pass what is open by force."""


class Person:
    """Cares about one VM. `settles`: also resolves issues, truthfully."""

    def __init__(self, scene: Scene, vm: BrokenVm, rng: Random, *, settles: bool) -> None:
        self._scene = scene
        self._vm = vm
        self._rng = rng
        self._settles = settles
        self._taken: Counter[tuple[str, str | None, Resolution]] = Counter()
        """How often a word was taken of an issue of this kind, about this."""
        self.said: list[str] = []
        self.found: list[Violation] = []
        """How a run of the VM was left that it must not have been, also where it went on later."""

    async def see_it_through(self) -> None:
        """Until it is cleaned up, or nothing more will be done."""
        for attempt in range(ATTEMPTS):
            job = self._job()
            if job is None or job.state in AGAIN:
                if attempt:
                    mend(self._scene, self._vm)
                await self._ask_for_a_run()
            elif job.state is JobState.PARKED and self._settles:
                await self._settle(job)
            job = await self._wait()
            self.found += await rest_violations(self._scene, self._vm.context_id, **self._scene.known_besides)
            if job is not None and job.state is JobState.COMPLETED:
                return
            if job is not None and job.state is JobState.PARKED and not self._settles:
                return
            await asyncio.sleep(self._rng.uniform(5.0, 120.0) * (attempt + 1))

    def find_fault(self) -> str | None:
        """Why it is wrong that the VM is not cleaned up: nothing kept it from that."""
        job = self._job()
        if job is not None and job.state is JobState.COMPLETED:
            return None
        if job is not None and job.state is JobState.PARKED and not self._settles:
            return None
        if why_not_clean(self._scene, self._vm, job) is not None:
            return None
        state = "not one run" if job is None else f"{job.state}"
        return f"{self._vm.name}: {state} after {ATTEMPTS} attempts; the last words: {'; '.join(self.said[-3:])[:600]}"

    def _job(self) -> Job | None:
        return self._scene.job_of(self._vm)

    async def _wait(self) -> Job | None:
        pause_s = LOOK_S
        until = self._scene.loop.time() + PATIENCE_S
        while True:
            job = self._job()
            if job is None or job.state in REST or self._scene.loop.time() > until:
                return job
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.3, 1800.0)

    async def _ask_for_a_run(self) -> None:
        request = CleanupRequest(self._vm.name, requested_by="operator")
        await self._accept_what_was_restored()
        if self._settles and self._scene.restored:
            await self._lift_markers()
        await self._through_a_daemon(lambda deps: submit_cleanup(deps, request), "asked for a run")

    async def _accept_what_was_restored(self) -> None:
        """`oma db accept-restore`, once somebody has looked."""
        if not self._settles or not self._scene.restored:
            return

        async def accept(deps: Deps) -> Any:
            epochs = next(one.epochs for one in self._scene.daemons.values() if one.deps is deps)
            return await epochs.accept(
                "looked at it",
                "operator",
                lambda job: build_restored_issue(job, deps.ids, deps.clock),
                deps.clock.now(),
            )

        asked_at = self._scene.clock.unix()
        await self._through_a_daemon(accept, "accepted the restored database")
        self._scene.note_accepted(asked_at)

    async def _lift_markers(self) -> None:
        """Those of runs that nobody remembers: taken off by hand, and then said so."""
        for issue in self._scene.read(oma_issues, context_id=self._vm.context_id, kind=FOREIGN_MARKED, state="open"):
            for resource_id in (*self._vm.volume_ids, *self._vm.snapshot_ids):
                kind = "Volume" if resource_id in self._vm.volume_ids else "Snapshot"
                words = {"resourceids": resource_id, "resourcetype": kind, "tags[0].key": MARK_KEY}
                self._scene.do_as_somebody_else("deleteTags", **words)
            await self._say(issue, Resolution.ROLLED_BACK)

    async def _settle(self, job: Job) -> None:
        mend(self._scene, self._vm)
        await self._accept_what_was_restored()
        await asyncio.sleep(self._rng.uniform(1.0, 900.0))
        mend(self._scene, self._vm)
        if self._is_hopeless(job):
            what = "cancelled what no word lets go on"
            if await self._through_a_daemon(lambda deps: cancel_job(deps, job.id, what, actor="operator"), what):
                return
        if self._rng.random() < FORCES:
            words = Words(force=True, resume=True, reason="the storage team knows of it")
            if await self._through_a_daemon(lambda deps: resume_job(deps, job.id, words), "forced"):
                return
        for issue in self._scene.read(oma_issues, job_id=job.id, state="open"):
            if issue["kind"] not in {*SELF_CLOSING_KINDS, CANCELLED}:
                await self._settle_one(issue)
        again = self._job()
        if again is not None and again.state is JobState.PARKED:
            await self._through_a_daemon(lambda deps: resume_job(deps, job.id, Words(reason="go on")), "resumed")

    def _is_hopeless(self, job: Job) -> bool:
        """The same word was taken of the same thing again and again, and each time led back to it."""
        open_ = self._scene.read(oma_issues, job_id=job.id, state="open")
        return any(self._taken[self._named(one, word)] >= HOPELESS for one in open_ for word in Resolution)

    async def _settle_one(self, issue: dict[str, Any]) -> None:
        """What was taken already, and led back to the same, is said again only where nothing else is."""
        words = sorted(self._words(issue), key=lambda word: self._taken[self._named(issue, word)] // 2)
        for word in words:
            if await self._say(issue, word):
                self._taken[self._named(issue, word)] += 1
                return

    async def _say(self, issue: dict[str, Any], word: Resolution) -> bool:
        said = Said(word, "looked at it myself", "operator")
        call = await self._through_a_daemon(
            lambda deps: resolve_issue(deps, issue["id"], said), f"said {word.value} of {issue['kind']}"
        )
        return call is not None

    @staticmethod
    def _named(issue: dict[str, Any], word: Resolution) -> tuple[str, str | None, Resolution]:
        return issue["kind"], (issue["target"] or {}).get("volume_id"), word

    def _words(self, issue: dict[str, Any]) -> list[Resolution]:
        """What is true first; the rest is what a person tries when that is not taken, or helps nothing."""
        target = issue["target"] or {}
        volume_id, snapshot_id = target.get("volume_id"), target.get("snapshot_id")
        world = self._scene.world
        applied = False
        match issue["kind"]:
            case "revert_snapshot" if volume_id in world.content and snapshot_id in world.content:
                applied = world.content[volume_id] == world.content[snapshot_id]
            case "detach_volume" if volume_id in world.model.world.volumes.rows:
                applied = world.holder_of(volume_id) is None and not self._scene.machine.shows(volume_id)
            case "attach_volume" if volume_id in world.model.world.volumes.rows:
                applied = world.holder_of(volume_id) == world.oma_vm_id
            case "delete_snapshot" if snapshot_id:
                applied = not world.snapshot_is_listed(snapshot_id)
            case _:
                pass
        words = [Resolution.ROLLED_BACK, Resolution.RESYNC]
        if applied:
            return [Resolution.APPLIED, *words]
        # Of all but a revert the world itself shows whether it happened, and contradicts whoever errs.
        return words if issue["kind"] == "revert_snapshot" else [*words, Resolution.APPLIED]

    async def _through_a_daemon(self, call: Callable[[Deps], Awaitable[T]], what: str) -> T | None:
        return await ask_a_daemon(self._scene, self._rng, call, what, self._note)

    def _note(self, what: str) -> None:
        self.said.append(what)
        self._scene.trace(f"operator  {what}")
