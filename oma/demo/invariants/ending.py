"""The newest run of a VM as it was left, and everything that its end is judged by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from oma.demo.invariants.facts import Call, History, VmFacts, VolumeAtRest
from oma.demo.invariants.journal import Row
from oma.domain.actions import MARKER_KINDS, Action, ActionKind
from oma.domain.events import EventType
from oma.domain.issues import DATABASE_OLDER
from oma.domain.jobs import Job
from oma.domain.leaks import LeakKind
from oma.domain.resolving import Resolution, resolution_of
from oma.domain.states import ActionState, JobState

UNCERTAIN: Final = frozenset({ActionState.STARTED, ActionState.EXECUTION_FAILED})
BY_WORD: Final = frozenset({ActionState.MANUAL_MARKED_AS_EXECUTED, ActionState.SKIPPED})


@dataclass(frozen=True, slots=True)
class Ending:
    """The newest run of one VM, and everything that its end is judged by."""

    history: History
    vm: VmFacts
    job: Job
    actions: list[Action]
    status: str
    words: Mapping[str, Resolution]
    """Volume → the word, and no proof, by which it went home."""

    @property
    def partial(self) -> bool:
        return bool((self.job.result or {}).get("partial"))

    @property
    def issues(self) -> list[Row]:
        """Open ones that stand for this run: its own, and that of a database which is older than the world."""
        own = self.history.journal.open_issues(self.job.id)
        return [*own, *(row for row in self.history.journal.open_issues(None) if row["kind"] == DATABASE_OLDER)]

    @property
    def uncertain(self) -> list[Action]:
        """Begun, and not known how they ended."""
        return [one for one in self.actions if one.state in UNCERTAIN and one.kind is not ActionKind.CLEAR_MARKER]

    @property
    def unproven(self) -> frozenset[str]:
        """Volumes that need a revert which neither its own job nor a person's word has settled."""
        return frozenset(self.needy - set(self.words))

    @property
    def reverts(self) -> list[Call]:
        """Of this VM, of whatever run."""
        ours = self.vm.volume_ids
        return [one for one in self.history.accepted if one.command == "revertSnapshot" and one.volume_id in ours]

    @property
    def needy(self) -> frozenset[str]:
        """Volumes that need a revert, and whose last one was not proven by its own job."""
        planned = {one.volume_id for one in self.job.plan.volumes if one.needs_revert}
        last = {one.volume_id: one for one in self.reverts}
        proven = {volume_id for volume_id, one in last.items() if self.history.is_proven(one, math.inf)}
        facts = {one.volume_id: one.needs_revert for one in self.vm.volumes}
        needy = {one for one, needs in facts.items() if (needs if needs is not None else one in planned)}
        return frozenset(needy - proven)

    def came_home(self, volume_id: str) -> bool:
        """By an attach of this run."""
        attaches = (one for one in self.actions if one.kind is ActionKind.ATTACH_VOLUME)
        return any(one.target.volume_id == volume_id and one.state is not ActionState.SKIPPED for one in attaches)

    @property
    def demanded_before(self) -> frozenset[str]:
        """Volumes that by an earlier run's end are to be copied whole."""
        demanded = (row for row in self.history.journal.events if row["type"] == EventType.RESYNC_DEMANDED.value)
        ours = self.vm.volume_ids
        return frozenset(
            one for row in demanded if row["job_id"] != self.job.id for one in row["data"]["volume_ids"] if one in ours
        )

    def find_place(self, volume_id: str) -> VolumeAtRest | None:
        """None where it tells nothing."""
        return None if volume_id in self.history.disturbed else self.history.rest.volumes.get(volume_id)

    def is_status(self, *wanted: str) -> bool:
        return self.vm.context_id in self.history.taken or self.status in wanted

    def leaks(self, kind: LeakKind) -> list[Row]:
        """Open ones of this VM."""
        rows = self.history.journal.open_leaks(self.vm.context_id)
        return [row for row in rows if row["kind"] == kind.value]


def list_endings(history: History) -> Iterator[Ending]:
    for vm in history.vms:
        jobs = history.journal.jobs_of(vm.context_id)
        parked = {row["context_id"] for row in history.journal.unreadable if row["state"] == JobState.PARKED.value}
        if not jobs or vm.context_id in parked:
            continue
        job = jobs[-1]
        # Markers change nothing that has to be whole or back; what becomes of them is judged in `marks`.
        actions = [one for one in history.journal.actions_of(job.id) if one.kind not in MARKER_KINDS]
        said = {one.target.volume_id or "": word for one in actions if (word := _word_for(one)) is not None}
        status = str(history.journal.contexts[vm.context_id]["current_status"])
        ending = Ending(history, vm, job, actions, status, said)
        yield replace(ending, words={**_said_before(ending), **said})


def _said_before(ending: Ending) -> dict[str, Resolution]:
    """Disks that the run brings home as they are, where an earlier run's end has really given them up."""
    planned = {one.volume_id for one in ending.job.plan.volumes if one.awaits_copy}
    return dict.fromkeys(planned & ending.demanded_before, Resolution.RESYNC)


def _word_for(action: Action) -> Resolution | None:
    if action.kind is not ActionKind.REVERT_SNAPSHOT or action.state not in BY_WORD:
        return None
    return resolution_of(action)
