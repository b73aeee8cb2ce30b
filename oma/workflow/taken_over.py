"""On its way back a run finds what no call of its can mend: a person hears of it once, then it is left as it is.

Somebody else wrote the VM's status, or CloudStack no longer lists a volume. The park that says so keeps that it was
said; whoever lets the run go on after that has read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from oma.domain.changes import UndoingBegun
from oma.domain.errors import Code
from oma.domain.records import CLEANUP_REQUIRED
from oma.domain.states import Phase
from oma.workflow.run import Failure, Run

STATUS = "current_status"


async def find_taken_over(run: Run) -> list[Failure]:
    """Where somebody else wrote the status: it is not ours to leave alone without a word."""
    status = (await run.tools.inventory.get_records(run.plan.context_id)).context.current_status
    undoing = run.undoing
    if undoing is None or status in (CLEANUP_REQUIRED, undoing.told_status):
        return []
    kept = f"Somebody else set the status of {run.plan.vm_name} to {status} during this run"
    cause = str(undoing.error["detail"])
    sentence = cause if cause.startswith("Somebody else set the status") else f"{kept}. {cause}".rstrip()
    return [Failure(Code.CLEANUP_FAILED, sentence, Phase.DETACH, evidence={STATUS: status})]


def tell(run: Run, failures: Sequence[Failure]) -> list[UndoingBegun]:
    """What these failures tell for the first time, to be written with their park."""
    undoing = run.undoing
    if undoing is None:
        return []
    status = next((one.evidence[STATUS] for one in failures if STATUS in one.evidence), undoing.told_status)
    gone = {str(one.evidence["gone"]) for one in failures if "gone" in one.evidence}
    told = replace(undoing, told_status=status, told_gone=tuple(sorted(gone.union(undoing.told_gone))))
    if told == undoing:
        return []
    return [UndoingBegun(told, "What this park tells is left as it is, if a person lets the run go on.")]
