"""Evidence as people read it: a label and a line each, no raw JSON. Used by the pages and by the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from oma.gui.words import size_words

Line = tuple[str, str]
SHORTEST: Final = 4
"""Characters from which a value is surely the same one when a sentence holds it."""
SPELLED: Final[Mapping[str, str]] = {"vm": "VM", "oma": "OMA", "id": "id", "cloudstack": "CloudStack", "nbd": "NBD"}


def evidence_lines(evidence: Mapping[str, Any], said: str = "") -> tuple[Line, ...]:
    """What there is to see, in the order of the evidence; what is empty, or `said` word for word, is left out."""
    there = {key: value for key, value in evidence.items() if value not in (None, "", [], {})}
    lines = (line for key, value in there.items() for line in _lines(key, value))
    return tuple((name, words) for name, words in lines if len(words) < SHORTEST or words not in said)


def label(key: str) -> str:
    """`vm_id` → `VM id`."""
    return " ".join(SPELLED.get(word, word) for word in key.split("_"))


def _lines(key: str, value: Any) -> Iterator[Line]:
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        tell = TOLD.get(key)
        for one in value:
            yield label(_one(key)), tell(one) if tell and isinstance(one, dict) else _words(one)
    elif key.endswith("size_bytes") and isinstance(value, int):
        yield label(key.removesuffix("_bytes")), size_words(value)
    else:
        yield label(key), _words(value)


def _one(key: str) -> str:
    """The label of one entry of a list."""
    return key[:-1] if key.endswith("s") and not key.endswith("ss") else key


def _words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{label(key)} {_words(one)}" for key, one in value.items() if one not in (None, "", [], {}))
    if isinstance(value, list):
        return ", ".join(_words(one) for one in value) or "none"
    return str(value)


def _holder(one: Mapping[str, Any]) -> str:
    """`process 4711 (inject-virtio-drivers.sh …) since …; may be ended`."""
    kind, name = label(str(one.get("kind") or "holder")), one.get("command") or one.get("name") or "?"
    who = f"{kind} {one['pid']} ({name})" if one.get("pid") else f"{kind} {name}"
    since = f" since {one['since']}" if one.get("since") else ""
    reason = f"; not to be ended: {one['why_not']}" if one.get("why_not") else ""
    return f"{who}{since}{'; may be ended' if one.get('endable') else reason}"


def _tracked(one: Mapping[str, Any]) -> str:
    places = ", ".join(one.get("tracked_in") or ()) or "nowhere"
    shown = one.get("cloudstack")
    return f"{one.get('snapshot_id')} in {places}; CloudStack: {_cloud_snapshot(shown)}"


def _cloud_snapshot(shown: Any) -> str:
    if not isinstance(shown, Mapping):
        return str(shown)
    size = shown.get("size_bytes")
    parts = [
        str(shown.get("state") or "no state"),
        f"made {shown['created']}" if shown.get("created") else "",
        size_words(size) if isinstance(size, int) else "",
        f"of volume {shown['volume_id']}" if shown.get("volume_id") else "",
    ]
    return ", ".join(part for part in parts if part)


def _candidate(one: Mapping[str, Any]) -> str:
    about = ", ".join(str(one[key]) for key in ("name", "created", "state") if one.get(key))
    problems = " ".join(one.get("problems") or ())
    verdict = "would pass, if a person names it" if one.get("would_pass") else f"would not pass: {problems}"
    return f"{one.get('snapshot_id')} ({about}); {verdict}"


TOLD: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "holders": _holder,
    "seen": _holder,
    "tracked": _tracked,
    "tracked_for_no_volume": _tracked,
    "candidates": _candidate,
}
