"""How a person settles an issue: what may be said of an action, held against what the world shows. Pure.

The decision is a table of action state, kind, resolution and what was seen. A claim that the world contradicts is
refused; a revert that is settled by a word is no proof, and nothing attaches its volume before the window is over.
Source: sections 5 and 8 of the safety rules.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from oma.domain.actions import Action, ActionKind
from oma.domain.issues import INTERNAL, UNBELIEVABLE, VOLUME_GONE, Issue
from oma.domain.remains import RunGivenUp
from oma.domain.states import ACTION_TRANSITIONS, DONE_ACTION_STATES, ActionState, JobState, Phase


class Resolution(StrEnum):
    APPLIED = "APPLIED"
    """It did happen, or was finished by hand: it is skipped."""
    ROLLED_BACK = "ROLLED_BACK"
    """It did not happen, or was undone: it runs again."""
    RESYNC = "RESYNC"
    """The content can't be proven: the disk goes home without a revert, and the next replication copies it whole."""


SPOKEN: Final = {**{one.value: one for one in Resolution}, "EXECUTED": Resolution.APPLIED}
"""What may be said, and what it means."""

RESYNC_PHASES: Final = frozenset({Phase.SNAPSHOTS.value, Phase.REATTACH.value, Phase.RESET.value})
"""Kinds of issues without an action by which reverts may be given up (`oma.domain.whole_copies`)."""

ENDED_FOR_GOOD: Final = frozenset({UNBELIEVABLE, INTERNAL})
"""Kinds of issues by which a run that never gets any further may be ended for good."""

WITHOUT_DOUBT: Final = ENDED_FOR_GOOD | {VOLUME_GONE}
"""Kinds of issues that `RESYNC` settles although nothing else is in doubt."""

RESOLVED: Final = "resolved"
"""In an action's evidence: who settled it, how and why."""
JOB_ENDED_BY: Final = "job_ended_by"
"""Beside it: a time at which the revert's own job had certainly ended; absent while it was still under way."""

FENCE: Final = "fence"
"""In an issue's evidence: the fence that its run got when a person gave it up."""

NOTES_LENGTH: Final = 2000


class Standing(StrEnum):
    """Where the action's own call stands on the other side, asked just now."""

    UNDER_WAY = "under way"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    NEVER_ARRIVED = "never arrived"
    UNTRACEABLE = "untraceable"
    """The other side gives calls ids of its own: nobody can ask for this one."""


class Effect(StrEnum):
    """What the world shows of the action's effect; of a revert, which leaves none, whether its volume is free."""

    THERE = "there"
    NOT_THERE = "not there"
    HALF = "half there"
    CHANGING = "changing"
    UNKNOWN = "unknown"
    FREE = "free"
    ATTACHED = "attached"
    TOUCHED = "free, and attached since"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a fresh look at the world found; `sentence` says it."""

    effect: Effect
    standing: Standing
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)
    snapshot_listed: bool = True


@dataclass(frozen=True, slots=True)
class Allowed:
    """`state` is what the action becomes, None where it stays as it is. `waits`: for the end of the revert's window."""

    state: ActionState | None
    sentence: str
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Contradicted:
    sentence: str
    next_step: str


@dataclass(frozen=True, slots=True)
class NotOffered:
    """The resolution makes no sense here; `allowed` does."""

    allowed: tuple[Resolution, ...]


Decision = Allowed | Contradicted | NotOffered

WAIT: Final = "Wait until it has ended, look again, and then say what became of it."
SAY_APPLIED: Final = "If it was done, say APPLIED."
SAY_ROLLED_BACK: Final = "If it is to be done again, say ROLLED_BACK."
SAY_RESYNC: Final = "If its content can't be proven any more, say RESYNC."


def offered(kind: ActionKind) -> tuple[Resolution, ...]:
    """What may be said of an action of this kind at all."""
    if kind in (ActionKind.REVERT_SNAPSHOT, ActionKind.ATTACH_VOLUME):
        return tuple(Resolution)
    if kind is ActionKind.RESET_RECORDS:
        return (Resolution.ROLLED_BACK,)
    return (Resolution.APPLIED, Resolution.ROLLED_BACK)


def offered_without_action(issue_kind: str, *, in_doubt: bool) -> tuple[Resolution, ...]:
    """An issue about what the run saw is closed by either word; the run then looks at the world again by itself.

    `in_doubt`: content is left that a person may give up.
    """
    both = (Resolution.APPLIED, Resolution.ROLLED_BACK)
    more = issue_kind in WITHOUT_DOUBT or (in_doubt and issue_kind in RESYNC_PHASES)
    return (*both, Resolution.RESYNC) if more else both


def possible_words(issue_kind: str | None) -> tuple[Resolution, ...]:
    """What may be said of an issue of this kind, as its guidance names it."""
    if issue_kind in tuple(ActionKind):
        return offered(ActionKind(issue_kind))
    return offered_without_action(issue_kind or "", in_doubt=True)


def decide(state: ActionState, kind: ActionKind, resolution: Resolution, seen: Seen) -> Decision:
    """What becomes of the action; pure, one answer for every cell of the table."""
    if resolution not in offered(kind):
        return NotOffered(offered(kind))
    if kind is ActionKind.REVERT_SNAPSHOT:
        return _decide_revert(state, resolution, seen)
    if kind is ActionKind.RESET_RECORDS:
        return _become(state, ActionState.MANUAL_MARKED_AS_ROLLED_BACK, f"{seen.sentence} They are reset again.")
    return _decide_visible(state, resolution, seen)


def _decide_visible(state: ActionState, resolution: Resolution, seen: Seen) -> Decision:
    """The effect that the world shows decides; what is under way, half done or not to be told is settled by no word."""
    if seen.standing is Standing.UNDER_WAY or seen.effect is Effect.CHANGING:
        return Contradicted(f"{seen.sentence} It is still under way.", WAIT)
    if resolution is Resolution.RESYNC:
        return _give_away(state, seen)
    if seen.effect is Effect.UNKNOWN:
        return Contradicted(f"{seen.sentence} Nobody can say what became of it.", "Find out first, then say it.")
    if seen.effect is Effect.HALF:
        return Contradicted(f"{seen.sentence} That is neither.", "Bring both sides to agree, then say which it is.")
    if resolution is Resolution.APPLIED:
        if seen.effect is not Effect.THERE:
            return Contradicted(f"{seen.sentence} So it did not happen.", SAY_ROLLED_BACK)
        return _become(state, ActionState.MANUAL_MARKED_AS_EXECUTED, f"{seen.sentence} It is skipped.")
    if seen.effect is not Effect.NOT_THERE:
        return Contradicted(f"{seen.sentence} So it did happen.", SAY_APPLIED)
    return _become(state, ActionState.MANUAL_MARKED_AS_ROLLED_BACK, f"{seen.sentence} It runs again.")


def _give_away(state: ActionState, seen: Seen) -> Decision:
    """Only a volume that is nowhere is given up where it was to be attached; its revert goes with it."""
    if seen.effect is not Effect.UNKNOWN:
        return Contradicted(f"{seen.sentence} It is there, and may be brought home.", SAY_ROLLED_BACK)
    sentence = f"{seen.sentence} It stays away unless it is found again and is copied whole."
    return _become(state, ActionState.MANUAL_MARKED_AS_ROLLED_BACK, sentence)


def _decide_revert(state: ActionState, resolution: Resolution, seen: Seen) -> Decision:
    """Its own job's success is its only proof; once anything could have written to the volume it is never repeated."""
    gone = seen.effect is Effect.UNKNOWN
    if gone and resolution is not Resolution.RESYNC:
        return Contradicted(seen.sentence, f"Find the volume first. {SAY_RESYNC}")
    if resolution is Resolution.RESYNC:
        fate = "It stays away unless it is found again" if gone else "The disk goes home without a revert"
        sentence = f"{seen.sentence} {fate} and is copied whole."
        if state is ActionState.EXECUTED and not gone:
            # What may have come over a proven revert is told by an issue of the reset, never by its own.
            return Contradicted(f"{sentence} But the journal has it as {state.value}.", "Read it: oma jobs show")
        return _become(state, ActionState.SKIPPED, sentence, waits=True)
    if resolution is Resolution.APPLIED:
        if seen.standing is Standing.SUCCEEDED and seen.effect is Effect.FREE:
            return _become(state, ActionState.EXECUTED, f"{seen.sentence} That proves the revert.")
        sentence = f"{seen.sentence} The disk goes home by a person's word, which is no proof; its snapshot is kept."
        return _become(state, ActionState.MANUAL_MARKED_AS_EXECUTED, sentence, waits=True)
    if seen.standing is Standing.UNDER_WAY or seen.effect is Effect.CHANGING:
        return Contradicted(f"{seen.sentence} It is still under way.", WAIT)
    if seen.standing is Standing.SUCCEEDED:
        return Contradicted(f"{seen.sentence} So it did happen.", SAY_APPLIED)
    if seen.effect is not Effect.FREE:
        words = "A volume that something may have written to is never reverted again."
        return Contradicted(f"{seen.sentence} {words}", SAY_RESYNC)
    if not seen.snapshot_listed:
        return Contradicted(f"{seen.sentence} There is nothing that it could be reverted to.", SAY_RESYNC)
    return _become(state, ActionState.MANUAL_MARKED_AS_ROLLED_BACK, f"{seen.sentence} It runs again.", waits=True)


def _become(state: ActionState, wanted: ActionState, sentence: str, *, waits: bool = False) -> Decision:
    """An action that stands where it is wanted stays; one that can't come there contradicts the claim by itself."""
    settled = DONE_ACTION_STATES - {ActionState.SKIPPED}
    if state is wanted or (wanted in settled and state in settled):
        return Allowed(None, sentence)
    if wanted not in ACTION_TRANSITIONS[state]:
        return Contradicted(f"{sentence} But the journal has it as {state.value}.", "Read it: oma jobs show")
    return Allowed(wanted, sentence, waits=waits)


def job_ended_by(action: Action, seen: Seen, now: datetime) -> datetime | None:
    """A time at which the revert's own job had certainly ended; None while it is under way.

    The journal's own time counts only where it was written because that end was seen.
    """
    if seen.standing is Standing.UNDER_WAY:
        return None
    known = action.evidence.get("job") in ("succeeded", "refused", "failed")
    return action.ended_at if known and action.ended_at is not None else now


def ended_by_of(action: Action) -> datetime | None:
    """What was kept of it when a person settled the action."""
    at = (action.evidence.get(RESOLVED) or {}).get(JOB_ENDED_BY)
    return datetime.fromisoformat(at) if isinstance(at, str) else None


def window_end(ended_by: datetime, window_s: float) -> datetime:
    """Until when CloudStack's agent may still be at a revert whose job has ended."""
    return ended_by + timedelta(seconds=window_s)


def resolution_of(action: Action | None) -> Resolution | None:
    """How a person settled this action; None where nobody did."""
    said = (action.evidence.get(RESOLVED) or {}).get("resolution") if action is not None else None
    return Resolution(said) if said is not None else None


@dataclass(frozen=True, slots=True)
class ActionMark:
    """What becomes of one action. `expected` is the state that was judged; None: it had not been journaled yet."""

    action: Action
    expected: ActionState | None


@dataclass(frozen=True, slots=True)
class IssueResolved:
    """A person's word about an issue, with what the world showed when it was said."""

    issue_id: str
    resolution: Resolution
    notes: str
    actor: str
    at: datetime
    sentence: str
    evidence: dict[str, Any]
    marks: tuple[ActionMark, ...]
    stays_open: bool = False
    """The word is kept with its evidence, and has to be said again later."""
    fences: bool = False
    """The word is kept, and its parked run gets a new fence, which is kept as well (`FENCE`)."""
    ends: RunGivenUp | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """The issue as it stands now, whether its run went back to the queue, and what else is open of the VM."""

    issue: Issue
    job_state: JobState | None
    resumed: bool
    open_issue_ids: tuple[str, ...]
