"""An attachment that stands although the Volume Daemon's operation failed: it is asked again, and finds it there.

The volume is home then in CloudStack and on the OMA, but without the mapping and the NBD export that the operation
would have made at its end; the next replication could not write to it. Asked again, the Volume Daemon changes nothing
in CloudStack and does its own part.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from oma.domain.actions import Action, ActionKind
from oma.domain.forcing import is_export_fault
from oma.domain.states import ActionState
from oma.ports import RemoteOutcome, RemoteStatus
from oma.workflow.look import Verdict
from oma.workflow.run import Run

COMPLETIONS: Final = 3
"""Attempts in all; one that still fails then is for a person."""
HALF_HOME: Final = "half_home"
"""In the evidence: CloudStack and the OMA show the volume home, the Volume Daemon's part is not done."""


def is_half_home(outcome: RemoteOutcome) -> bool:
    """Whether the Volume Daemon left an attachment without its mapping; one that lost its export alone is told so."""
    failed = outcome.status in {RemoteStatus.FAILED, RemoteStatus.REFUSED}
    return failed and not (outcome.upstream is not None and is_export_fault(outcome.upstream.as_json()))


def build_completion(run: Run, action: Action, verdict: Verdict) -> Action | None:
    """The next attempt, under its own id; None where there is nothing to complete, or it was tried often enough."""
    if action.kind is not ActionKind.ATTACH_VOLUME or not verdict.evidence.get(HALF_HOME):
        return None
    if action.attempt >= COMPLETIONS:
        return None
    return replace(
        action,
        state=ActionState.STARTED,
        attempt=action.attempt + 1,
        remote_id=None,
        intent_at=run.tools.clock.now(),
        sent_at=None,
        ended_at=None,
        evidence={},
        error=None,
        sentence=f"Let the Volume Daemon finish its part: {run.name_of(action.target)} is on the OMA already.",
    )
