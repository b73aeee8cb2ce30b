"""Which failures `force` may pass: four kinds, each a thing that stays behind and harms no byte.

Source: section 8 of the safety rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from oma.domain.actions import KIND_RULES, Action, ActionKind
from oma.domain.issues import Issue
from oma.domain.states import ActionState

EXPORT_FAULTS: Final = frozenset({"nbd_export_missing", "nbd_reload_failed", "nbd_export_name_taken"})
"""How the Volume Daemon ends an attachment that stands, with its device, and whose export alone failed
(`volume_daemon/server/finish.py`)."""

FORCED: Final = "forced"
"""In a stop's evidence: it was sent with `forced=true`."""
FORCED_BEFORE: Final = "forced_before"
"""In the evidence of a later attempt: one before it was sent with `forced=true`, and may take effect at any time."""
UNFORCED: Final = "unforced"
"""In a forced stop's evidence: how the unforced one came to no end."""
EARLIER: Final = "earlier_attempts"
"""In the evidence of a later attempt: how those before it ended, oldest first."""
HOST: Final = "host"
"""In a forced stop's evidence: where the VM ran."""


def was_forced(action: Action) -> bool:
    """Whether any attempt at this stop was a forced one."""
    return bool(action.evidence.get(FORCED) or action.evidence.get(FORCED_BEFORE))


def kept_evidence(action: Action) -> dict[str, Any]:
    """What an attempt's evidence said from its start, which its end must not lose."""
    return {
        key: action.evidence[key] for key in (FORCED, FORCED_BEFORE, UNFORCED, HOST, EARLIER) if key in action.evidence
    }


def carried_evidence(released: Action) -> dict[str, Any]:
    """What the next attempt has to know of those before it: that one was forced, and where the VM ran then."""
    earlier = {EARLIER: released.evidence[EARLIER]} if EARLIER in released.evidence else {}
    if not was_forced(released):
        return earlier
    host = {HOST: released.evidence[HOST]} if HOST in released.evidence else {}
    return {FORCED_BEFORE: True, **host, **earlier}


def may_have_run(action: Action) -> bool:
    """Whether the current attempt may have changed anything, as it was journaled: not after a definite no."""
    return (action.error or {}).get("unknown") is not False


def next_attempt(action: Action) -> Action:
    """Only in this process until its intent is journaled; until then the journal says how the last one ended.

    A revert whose outcome nobody knows stays among its evidence: what happened since counts for every later one.
    """
    evidence = action.evidence
    undone = action.state is ActionState.ROLLED_BACK
    if action.kind is ActionKind.REVERT_SNAPSHOT and not undone and may_have_run(action):
        evidence = {**evidence, EARLIER: [*evidence.get(EARLIER, ()), _ended_so(action)]}
    return replace(
        action,
        state=ActionState.PLANNED,
        attempt=action.attempt + 1,
        remote_id=None,
        sent_at=None,
        ended_at=None,
        evidence=evidence,
    )


def _ended_so(action: Action) -> dict[str, Any]:
    return {
        "attempt": action.attempt,
        "job_id": action.remote_id,
        "job": action.evidence.get("job"),
        "intent_at": action.intent_at.isoformat() if action.intent_at else None,
        "expires_at": action.expires_at.isoformat() if action.expires_at else None,
        "ended_at": action.ended_at.isoformat() if action.ended_at else None,
        "sentence": action.sentence,
    }


def is_export_fault(upstream: Mapping[str, Any] | None) -> bool:
    return upstream is not None and upstream.get("code") in EXPORT_FAULTS


def is_passable(kind: ActionKind, upstream: Mapping[str, Any] | None) -> bool:
    """Whether the failure of such an action is one of the four; an attachment's only where its export alone failed."""
    return KIND_RULES[kind].forced or (kind is ActionKind.ATTACH_VOLUME and is_export_fault(upstream))


def is_forcible(issue: Issue) -> bool:
    """Whether a parked run may go on past this issue by `force`."""
    if issue.action_id is None:
        return False
    try:
        kind = ActionKind(issue.kind)
    except ValueError:
        return False
    return is_passable(kind, issue.error)
