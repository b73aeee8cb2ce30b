"""What is done about an action that may have been sent, as data: by its state, its kind's strategy, what was found.

Pure. Who looks is `workflow.finding`, and `workflow.reverting` for a revert that ended without its proof. Sources: the
contract's *Recovery*, sections 5, 6 and 8 of the safety rules.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from itertools import product
from typing import Final

from oma.domain.actions import KIND_RULES, Action, Strategy
from oma.domain.states import ActionState


class Found(StrEnum):
    """What a look for a call has shown. `by observation`: no id of ours can be asked for, so the world is looked at."""

    KNOWN = "the other side knows its id"
    NEVER_ARRIVED = "the other side would know its id, and does not"
    MAY_ARRIVE = "no id can be asked for, and the call may still arrive"
    SHOWN = "by observation: its effect is there"
    NOT_SHOWN = "by observation: its effect is not there, and nothing is at it"
    BUSY = "by observation: something is still at it"
    SILENT = "nobody answers"
    REFUSED = "it ended with a definite no: nothing was changed"
    UNPROVEN_YOUNG = "it ended without proof, and its effect may still come"
    UNPROVEN = "it ended without proof, its effect can come no more, and nothing touched the volume since"
    UNPROVEN_TOUCHED = "it ended without proof, and something was or is at the volume since, or that cannot be told"
    UNPROVEN_SPENT = "it ended without proof as often as it may be tried"


class Decision(StrEnum):
    ADOPT = "adopt"
    """It is ours as if this process had sent it: followed to its end, judged, journaled."""
    SEND = "send"
    """Sent under the same id as long as none of that id has run; after an end without proof as the next attempt."""
    WAIT = "wait"
    """Until more can be found; the job says until when."""
    SKIP = "skip"
    """Nothing is left to be done about it."""
    PARK = "park"
    """A person settles it."""


_ENDED: Final = frozenset(
    {ActionState.EXECUTED, ActionState.SKIPPED, ActionState.MANUAL_MARKED_AS_EXECUTED},
)
"""Settled, whatever a look would show."""
_OPEN_AGAIN: Final = frozenset(
    {ActionState.PLANNED, ActionState.ROLLED_BACK, ActionState.MANUAL_MARKED_AS_ROLLED_BACK},
)
"""Not begun, or undone with proof or on a person's word: the next attempt is as good as the first."""

_OF_STARTED: Final[dict[Found, tuple[Decision, Decision]]] = {
    Found.KNOWN: (Decision.ADOPT, Decision.ADOPT),
    Found.NEVER_ARRIVED: (Decision.SEND, Decision.SEND),
    Found.MAY_ARRIVE: (Decision.WAIT, Decision.WAIT),
    Found.SHOWN: (Decision.ADOPT, Decision.ADOPT),
    # Nothing that is seen proves a revert or its absence: it is adopted as one that ended without proof.
    Found.NOT_SHOWN: (Decision.SEND, Decision.ADOPT),
    Found.BUSY: (Decision.PARK, Decision.PARK),
    Found.SILENT: (Decision.PARK, Decision.PARK),
    Found.REFUSED: (Decision.PARK, Decision.PARK),
    # The world was seen to stand still without the effect, and the other side said why: that is a failure.
    Found.UNPROVEN_YOUNG: (Decision.PARK, Decision.WAIT),
    Found.UNPROVEN: (Decision.PARK, Decision.SEND),
    Found.UNPROVEN_TOUCHED: (Decision.PARK, Decision.PARK),
    Found.UNPROVEN_SPENT: (Decision.PARK, Decision.PARK),
}
"""For a kind that may always be tried again, and for one that needs a person."""

_OF_FAILED: Final[dict[Found, tuple[Decision, Decision]]] = {
    **dict.fromkeys(Found, (Decision.PARK, Decision.PARK)),
    Found.UNPROVEN_YOUNG: _OF_STARTED[Found.UNPROVEN_YOUNG],
    Found.UNPROVEN: _OF_STARTED[Found.UNPROVEN],
}
"""What ended badly is not looked for again; only how it ended counts."""


def _cell(state: ActionState, strategy: Strategy, found: Found) -> Decision:
    if state in _ENDED:
        return Decision.SKIP
    if state in _OPEN_AGAIN:
        return Decision.SEND
    if state is ActionState.ROLLBACK_FAILED:
        return Decision.PARK
    row = _OF_STARTED if state is ActionState.STARTED else _OF_FAILED
    return row[found][strategy is Strategy.MANUAL_INTERVENTION]


TABLE: Final[dict[tuple[ActionState, Strategy, Found], Decision]] = {
    cell: _cell(*cell) for cell in product(ActionState, Strategy, Found)
}
"""Every cell; nothing is decided outside of it."""


def decide(action: Action, found: Found) -> Decision:
    return TABLE[action.state, KIND_RULES[action.kind].strategy, found]


def cannot_arrive_after(action: Action, late_s: float) -> datetime | None:
    """From when on a call without an answer can no longer arrive, in the server's time.

    None where it was journaled without its `expires`.
    """
    expires = action.expires_at or action.intent_at
    return None if expires is None else expires + timedelta(seconds=late_s)


def is_still_known(action: Action, now: datetime, *, memory_s: float, expires_s: float) -> bool:
    """Whether "I don't know that id" still means "it never arrived": jobs' rows live only so long.

    `now` is the server's time, and so is the `expires` that was journaled with the last sending: a call that was sent
    again under its id was not known when that was done.
    """
    if action.expires_at is not None:
        return now - (action.expires_at - timedelta(seconds=expires_s)) < timedelta(seconds=memory_s)
    return action.intent_at is not None and now - action.intent_at < timedelta(seconds=memory_s)


def find_revert_end(
    action: Action, now: datetime, *, window_s: float, attempts: int, touched: bool
) -> tuple[Found, datetime | None]:
    """How a revert that ended without proof stands now, and until when its effect may still come.

    Source: a hypervisor may work on after its job was marked failed (section 5; CloudStack fact 2).
    """
    if action.attempt >= attempts:
        return Found.UNPROVEN_SPENT, None
    if action.ended_at is None:
        return Found.UNPROVEN_TOUCHED, None
    until = action.ended_at + timedelta(seconds=window_s)
    if touched:
        return Found.UNPROVEN_TOUCHED, until
    return (Found.UNPROVEN_YOUNG if now < until else Found.UNPROVEN), until
