"""Styles of states on a terminal; the word is always there, the colour helps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from rich.text import Text

from oma.cli.output import visible
from oma.gui.words import unnumbered

STYLES: Final[Mapping[str, str]] = {
    "ready_for_failover": "green",
    "completed": "green",
    "executed": "green",
    "ready": "green",
    "done": "green",
    "ok": "green",
    "running": "cyan",
    "started": "cyan",
    "replicating": "cyan",
    "failed_over_test": "cyan",
    "failed_over_live": "cyan",
    "cleanup_required": "yellow",
    "parked": "yellow",
    "partial": "yellow",
    "refused": "yellow",
    "needs resolution": "yellow",
    "resync_required": "yellow",
    "failed": "red",
    "execution_failed": "red",
    "rollback_failed": "red",
    "fault": "red",
    "unreachable": "red",
}


def state_text(state: object) -> Text:
    word = visible(state)
    return Text(word, style=STYLES.get(word.lower(), ""))


def short_time(value: object) -> str:
    """To the second, in UTC; whatever is no time stands as it is."""
    if not isinstance(value, str) or not value:
        return ""
    try:
        return datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M:%SZ")
    except ValueError:
        return visible(value)


def target_text(target: Mapping[str, Any] | None) -> str:
    """What an action is done to, by its most readable name."""
    known = target or {}
    for key in ("volume_name", "volume_id", "vm_id", "snapshot_id"):
        if known.get(key):
            return visible(known[key])
    return ""


def upstream_text(upstream: object) -> str:
    """The other system's own code and words."""
    if not isinstance(upstream, Mapping):
        return visible(upstream) if upstream else ""
    head = " ".join(str(upstream[key]) for key in ("system", "code") if upstream.get(key))
    return visible(f"{head}: {upstream.get('text', '')}" if head else upstream.get("text", ""))


def guidance_lines(guidance: object) -> list[str]:
    """The steps without numbers of their own: whoever prints them numbers them."""
    steps = (guidance,) if isinstance(guidance, str) else guidance
    if not isinstance(steps, list | tuple):
        return []
    return [visible(step) for step in unnumbered(str(one) for one in steps)]


def upstream_once(upstream: object, sentence: str) -> str:
    """The other system's words, or its code alone where the sentence holds them already."""
    if isinstance(upstream, Mapping) and upstream.get("text") and str(upstream["text"]) in sentence:
        return upstream_text({**upstream, "text": ""}).rstrip(": ")
    return upstream_text(upstream)
