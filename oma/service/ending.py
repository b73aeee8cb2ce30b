"""The last word about a run whose journal can't be believed: it ends, and every disk of its VM is copied whole.

Nothing of it may still be on its way then, and no hypervisor at a revert that nobody can tell of any more: what is
uncertain is burned, everything is seen at rest, and from that look on the whole window of a revert passes. The first
word begins the window, a later one ends the run. Source: sections 5 and 6 of the safety rules.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from oma.domain.actions import Action, ActionKind, Target
from oma.domain.errors import Code, OmaError
from oma.domain.issues import INTERNAL, Issue
from oma.domain.leaks import Leak, LeakKind
from oma.domain.records import VolumeRecord
from oma.domain.remains import Remains, RunGivenUp
from oma.domain.resolving import FENCE, IssueResolved, window_end
from oma.domain.states import ActionState, JobState
from oma.domain.verdict import cleanup_command, shell_word
from oma.service.deps import Deps
from oma.service.marking import Word, build_mark
from oma.service.unrest import Rest, find_rest
from oma.workflow.doubt import utc
from oma.workflow.gone import gone_sentence

QUIET_SINCE: Final = "quiet_since"
"""In the issue's evidence: when everything of the run was first seen at rest after a person had given it up."""
BY_SERVER: Final = "quiet_since_by_server"
"""Beside it: the same by CloudStack's clock."""


@dataclass(frozen=True, slots=True)
class Ending:
    """`resolved` is what is to be written, None where nothing is new; `waits_until` where the run can't end yet."""

    resolved: IssueResolved | None
    sentence: str
    waits_until: datetime | None


def still_unreadable(issue: Issue, error: OmaError) -> OmaError:
    """Said of a run whose rows nobody has put right."""
    return OmaError(
        Code.RESOLUTION_CONTRADICTED,
        error.sentence,
        vm_name=issue.vm_name,
        job_id=issue.job_id,
        guidance=list(issue.guidance),
        next="Put the row right and say it again, or end the run for good: say RESYNC.",
    )


async def find_parked(deps: Deps, issue: Issue) -> Remains:
    """What is left of the issue's run. Raises `cleanup_in_progress` where it isn't parked."""
    remains = await deps.jobs.find_remains(issue.job_id or "")
    if remains is not None and remains.state is JobState.PARKED:
        return remains
    state = "gone" if remains is None else remains.state.value
    raise OmaError(
        Code.CLEANUP_IN_PROGRESS,
        f"The run {issue.job_id} of {issue.vm_name} is {state}; it is given up while it is parked.",
        vm_name=issue.vm_name,
        job_id=issue.job_id,
        holder=state,
        next=f"Follow it: oma jobs follow {issue.job_id}",
    )


def build_fencing(issue: Issue, word: Word, remains: Remains) -> IssueResolved | None:
    """The first word about a run makes all orders that were given before it older ones. None where it did already."""
    if issue.evidence.get(FENCE) == remains.fence:
        return None
    return _resolved(issue, word, f"{word.actor} gives the run up: it gets a new fence.", {}, fences=True)


async def judge_end(deps: Deps, issue: Issue, word: Word, remains: Remains) -> Ending:
    """Raises `state_unknown` where something may still come, or nobody says."""
    records = await deps.inventory.get_records(remains.context_id)
    rest = await find_rest(deps, issue, remains, records)
    if remains.may_have_reverted or issue.kind != INTERNAL:
        since = _find_beginning(issue)
        ours, servers = since or (word.at, rest.server_time)
        left = max(
            window_end(ours, deps.revert_window_s) - word.at,
            window_end(servers, deps.revert_window_s) - rest.server_time,
        )
        if left > timedelta():
            evidence = {} if since else {QUIET_SINCE: ours.isoformat(), BY_SERVER: servers.isoformat()}
            return _wait(issue, word, word.at + left, evidence, rest)
    return _end(deps, issue, word, remains, rest)


def _find_beginning(issue: Issue) -> tuple[datetime, datetime] | None:
    """Of the window, by our clock and by CloudStack's: whichever was set forward shortens nothing."""
    ours, servers = issue.evidence.get(QUIET_SINCE), issue.evidence.get(BY_SERVER)
    if not isinstance(ours, str) or not isinstance(servers, str):
        return None
    return datetime.fromisoformat(ours), datetime.fromisoformat(servers)


def _wait(issue: Issue, word: Word, until: datetime, evidence: dict[str, Any], rest: Rest) -> Ending:
    sentence = (
        f"Nothing of the run is on its way any more, but a hypervisor may still be at a revert: say it again after "
        f"{utc(until)}, and the run is ended for good.{_gone_words(rest)}"
    )
    if not evidence:
        return Ending(None, sentence, until)
    return Ending(_resolved(issue, word, sentence, evidence, stays_open=True), sentence, until)


def _gone_words(rest: Rest) -> str:
    names = ", ".join(one.volume_name or one.volume_id for one in rest.gone)
    return f" CloudStack no longer lists {names}: what was on it is lost unless it is found again." if names else ""


def _end(deps: Deps, issue: Issue, word: Word, remains: Remains, rest: Rest) -> Ending:
    sentence = (
        f"{word.actor} gave the run up for good: {word.notes} Nothing of it is gone on with, and every "
        f"{'other ' if rest.gone else ''}disk of {remains.vm_name} is copied whole by its next replication."
        f"{_gone_words(rest)}"
    )
    command = cleanup_command(remains.vm_name, "--context-id", shell_word(remains.context_id))
    given_up = RunGivenUp(
        rest.volume_ids,
        sentence,
        f"Don't fail over {remains.vm_name}. See what a clean-up would do: {command} --dry-run. "
        "It brings the disks home as they are; then start a full replication.",
        remains.fence,
        _unmarkings(deps, remains, word.at),
        rest.dead,
        tuple(_build_leak(deps, remains, word, one) for one in rest.gone),
    )
    marks = tuple(build_mark(word, one, ActionState.SKIPPED, seen={}, ended_by=word.at) for one in remains.uncertain)
    return Ending(_resolved(issue, word, sentence, {}, marks=marks, ends=given_up), sentence, None)


def _build_leak(deps: Deps, remains: Remains, word: Word, volume: VolumeRecord) -> Leak:
    return Leak(
        id=deps.ids.new_id(),
        context_id=remains.context_id,
        vm_name=remains.vm_name,
        job_id=remains.job_id,
        kind=LeakKind.VOLUME_GONE,
        target=Target(volume_id=volume.volume_id, volume_name=volume.volume_name).as_json(),
        sentence=gone_sentence(volume.volume_name or volume.volume_id, volume.volume_id),
        reason=word.notes,
        since=word.at,
    )


def _unmarkings(deps: Deps, remains: Remains, at: datetime) -> tuple[Action, ...]:
    """Their calls are sent by the sweep."""
    marked = [one for one in remains.actions if one.kind is ActionKind.SET_MARKER]
    seq = max((one.seq for one in remains.actions), default=0)
    return tuple(
        Action(
            id=deps.ids.new_id(),
            job_id=remains.job_id,
            phase=one.phase,
            seq=seq + number,
            kind=ActionKind.CLEAR_MARKER,
            target=one.target,
            state=ActionState.STARTED,
            intent_at=at,
            sentence="Take the marker of the run that was given up off.",
        )
        for number, one in enumerate(marked, 1)
    )


def _resolved(issue: Issue, word: Word, sentence: str, evidence: dict[str, Any], **more: Any) -> IssueResolved:
    return IssueResolved(
        **{
            "issue_id": issue.id,
            "resolution": word.resolution,
            "notes": word.notes,
            "actor": word.actor,
            "at": word.at,
            "sentence": sentence,
            "evidence": evidence,
            "marks": (),
            **more,
        }
    )
