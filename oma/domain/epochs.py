"""Epochs: by them a daemon knows that its database is older than the world, because somebody restored a copy. Pure.

Each start raises the epoch in the database, in the state directory and as a tag on the OMA VM, and now and then so does
a daemon whose runs go on. A witness that is ahead of the database, or that is another installation's, has seen more
than the database tells. Source: section 6 of the safety rules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from oma.domain.actions import Action
from oma.domain.issues import Issue
from oma.domain.states import ActionState

FENCE_STRIDE: Final = 1_000_000
"""How far the fences jump when a restore is accepted: nothing that the lost leases have sent is above it."""


BEYOND_NUMBERS: Final = 10**18
"""No epoch and no event is counted so far; a database's column takes little more."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """`<installation>:<n>`, as it stands in the tag."""

    installation: str
    number: int

    @property
    def text(self) -> str:
        return f"{self.installation}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Epoch | None:
        installation, _, number = text.rpartition(":")
        is_number = number.isascii() and number.isdigit() and int(number) < BEYOND_NUMBERS
        return cls(installation, int(number)) if installation and is_number else None


@dataclass(frozen=True, slots=True)
class Witness:
    """Something outside of the database that remembers an epoch.

    `written`: the newest event that it has seen in the journal. It tells a copy that was made and put back within one
    epoch, whose run has gone on since.
    """

    place: str
    text: str
    written: int = 0

    def as_json(self) -> dict[str, Any]:
        return {"place": self.place, "epoch": self.text, "written": self.written}


@dataclass(frozen=True, slots=True)
class EpochState:
    """What the database knows."""

    number: int
    """0: no daemon has ever started on it."""
    written: int
    """Its newest event."""
    oma_vm_ids: tuple[str, ...] = ()
    """Of its active configurations."""
    older_since: datetime | None = None
    """It was found to be older than the world, and nobody has accepted that yet."""
    sentence: str = ""
    accepted: tuple[str, ...] = ()
    """What a person has accepted last, word for word: these witnesses are heard no more."""


@dataclass(frozen=True, slots=True)
class Older:
    """The finding that the database is older than the world."""

    sentence: str
    witnesses: tuple[Witness, ...]

    def as_json(self) -> dict[str, Any]:
        return {"witnesses": [one.as_json() for one in self.witnesses]}


def find_older(state: EpochState, installation: str, seen: Sequence[Witness]) -> Older | None:
    """None where no witness knows more than the database."""
    ahead = [(one, said) for one in seen if (said := _say_ahead(state, installation, one, state.accepted)) is not None]
    if not ahead:
        return None
    said = "; ".join(words for _, words in ahead)
    return Older(
        f"The database is older than the world: it knows epoch {state.number} of {installation}, but {said}.",
        tuple(one for one, _ in ahead),
    )


def _say_ahead(state: EpochState, installation: str, seen: Witness, accepted: Collection[str]) -> str | None:
    epoch = Epoch.parse(seen.text)
    if seen.text not in accepted:
        if epoch is None:
            return f"{seen.place} says {seen.text!r}, which is no epoch"
        if epoch.installation != installation:
            return f"{seen.place} says {epoch.text}, which is another installation's"
        if epoch.number > state.number:
            return f"{seen.place} says {epoch.text}"
    if seen.written > state.written:
        return f"{seen.place} has seen event {seen.written}, it only {state.written}"
    return None


def highest_number(numbers: int, witnesses: Sequence[Witness]) -> int:
    """The epoch that a database has after a restore was accepted: as high as any witness, so that its next is above."""
    known = (epoch.number for one in witnesses if (epoch := Epoch.parse(one.text)) is not None)
    return max(numbers, *known, 0)


def name_uncertain(issue: Issue, actions: Iterable[Action]) -> Issue:
    """With each action that the copy had begun and not ended: how these stand now, nobody has asked yet."""
    begun = [one for one in actions if one.state in {ActionState.STARTED, ActionState.EXECUTION_FAILED}]
    uncertain = [f"{one.words} is {one.state.value}" for one in begun]
    return replace(issue, evidence={**issue.evidence, "action_ids": [one.id for one in begun], "uncertain": uncertain})
