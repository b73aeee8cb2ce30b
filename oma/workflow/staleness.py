"""What makes a confirmed plan stale, in sentences: the plan that was confirmed beside the one that would be run now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from oma.domain.errors import Code, Refusal
from oma.domain.plan import Plan

NOT_KNOWN: Final = "The plan that was confirmed is not known any more; compare the actions below with it."
SHOWN_CHANGES: Final = 3
"""Changes that the sentence itself names; the evidence names all."""


def stale_refusal(expected: str, confirmed: Plan | None, current: Plan, problem: str | None = None) -> Refusal:
    """`plan_stale`. `confirmed` is the plan with the digest `expected` where it is still known.

    `problem`: a sentence about what the change means for what was asked for.
    """
    changes = [NOT_KNOWN] if confirmed is None else list(changes_between(confirmed, current))
    more = len(changes) - SHOWN_CHANGES
    told = [*changes[:SHOWN_CHANGES], *([f"{more} more changes."] if more > 0 else []), *([problem] if problem else [])]
    return Refusal(
        Code.PLAN_STALE,
        f"The plan for {current.vm_name} is not the one that was confirmed; nothing was touched. {' '.join(told)}",
        "Look at the new plan with a dry run and confirm that one.",
        {
            "expected": expected,
            "current": current.digest,
            "changed": changes,
            "actions": [action.sentence for action in current.actions],
            "observed": list(current.observed),
        },
    )


def changes_between(before: Plan, after: Plan) -> Iterator[str]:
    """One sentence for each difference that the digest sees; none for equal plans."""
    old, new = before.as_json(), after.as_json()
    for told in ("observed", "risks", "left_alone"):
        del old[told], new[told]
    was_said, is_said = old.pop("words"), new.pop("words")
    if was_said != is_said:
        said = f"was {_value(was_said)} and is {_value(is_said)}"
        yield f"What a person insists on {said}; say the same words, or confirm the new plan."
    volumes = [{volume["volume_id"]: volume for volume in plan.pop("volumes")} for plan in (old, new)]
    planned = [plan.pop("actions") for plan in (old, new)]
    actions = [[action["sentence"] for action in each] for each in planned]
    yield from _changed_values("The VM's", old, new)
    for volume_id in sorted({*volumes[0], *volumes[1]}):
        was, now = volumes[0].get(volume_id), volumes[1].get(volume_id)
        if was is None or now is None:
            yield f"Volume {volume_id} {'is new' if was is None else 'is gone'}."
        else:
            yield from _changed_values(f"{now['name']}'s", was, now)
    gone, added = (_without(actions[0], actions[1]), _without(actions[1], actions[0]))
    yield from (f"No longer planned: {sentence}" for sentence in gone)
    yield from (f"Planned now: {sentence}" for sentence in added)
    if actions[0] == actions[1] and planned[0] != planned[1]:
        yield "What would be done is the same, but to others: a process that would be ended has been started anew."
    if not gone and not added and actions[0] != actions[1]:
        yield "The same actions are planned in another order."


def _changed_values(whose: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    for key, was in old.items():
        now = new[key]
        if isinstance(was, dict) and isinstance(now, dict):
            yield from _changed_values(f"{whose} {_words(key)}'s", was, now)
        elif was != now:
            yield f"{whose} {_words(key)} was {_value(was)} and is {_value(now)}."


def _words(key: str) -> str:
    return " ".join({"vm": "VM", "oma": "OMA"}.get(word, word) for word in key.split("_"))


def _value(value: Any) -> str:
    if value is None or value in ("", []):
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{_words(key)} {one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _without(sentences: list[str], others: list[str]) -> list[str]:
    return [sentence for sentence in sentences if sentence not in others]
