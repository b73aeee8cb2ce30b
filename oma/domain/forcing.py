"""Which failures `force` may pass: four kinds, each a thing that stays behind and harms no byte.

Source: section 8 of the safety rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from oma.domain.actions import KIND_RULES, ActionKind
from oma.domain.issues import Issue

EXPORT_FAULTS: Final = frozenset({"nbd_export_missing", "nbd_reload_failed", "nbd_export_name_taken"})
"""How the Volume Daemon ends an attachment that stands, with its device, and whose export alone failed
(`volume_daemon/server/finish.py`)."""


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
