"""The markers of runs that have ended: taken off, or on their way off in the journal under an id of their own."""

from __future__ import annotations

from oma.demo.invariants.calls import Found
from oma.demo.invariants.facts import History
from oma.domain.actions import ActionKind
from oma.domain.leaks import LeakKind
from oma.domain.states import ActionState, JobState
from oma.domain.world import Mark

ENDED = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


def no_marker_outlives_its_run(history: History) -> Found:
    """What still carries the marker of an ended run has an open action that takes it off: the sweep comes for it.

    After a day in vain it is tracked as a leak.
    """
    for vm in history.vms:
        for resource_id in sorted((vm.volume_ids | vm.snapshot_ids) & history.rest.marks.keys()):
            mark = Mark(resource_id, history.rest.marks[resource_id])
            job = history.journal.jobs.get(mark.job_id)
            if job is None or job.state not in ENDED:
                continue
            unmarking = history.journal.actions_of(job.id, ActionKind.CLEAR_MARKER)
            kept = (row for row in history.journal.leaks if row["job_id"] == job.id)
            is_leak = any(row["kind"] == LeakKind.MARKER_KEPT.value for row in kept)
            known = {ActionState.STARTED, *([ActionState.EXECUTION_FAILED] if is_leak else [])}
            if not any(one.state in known and resource_id in one.target.marked_ids for one in unmarking):
                yield vm.name, f"{resource_id} still carries the marker of the {job.state} run {job.id}"
