"""What a plan says of the words that a person said: what may be left behind, and which had nothing to pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from oma.domain.plan import Plan
from oma.domain.words import Words

PASSED_BY: Final = {
    "end_test": "end_test",
    "end_holders": "end_holders",
    "snapshots": "snapshots",
    "destination_vm_id": "force",
}
"""Word → the one that a sentence names which says what was passed: "passed by <word>: <reason>"."""


def say_words(plan: Plan, words: Words) -> Plan:
    """The plan with the words that it is made under, and what is to be said of them; no sentence is in its digest."""
    told = (*plan.observed, *plan.risks)
    return replace(
        plan,
        words=words.planned,
        observed=(*plan.observed, *_idle_words(words, told)),
        risks=(*plan.risks, *_force_risk(words)),
    )


def _idle_words(words: Words, told: Iterable[str]) -> Iterator[str]:
    sentences = tuple(told)
    for name, shown in PASSED_BY.items():
        if name in words.spoken and not any(f"passed by {shown}: " in one for one in sentences):
            yield f"{name} was said and had nothing to pass."


def _force_risk(words: Words) -> Iterator[str]:
    if words.passes_failures:
        yield (
            "A test VM that won't stop or be destroyed, a snapshot that won't be deleted and an export that won't come "
            f"back will be passed by force: {words.reason}. What stays behind is tracked as a leak."
        )
