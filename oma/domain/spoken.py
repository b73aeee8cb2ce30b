"""Reading the words that only a person may say, from a body, a form or a command line; pure.

What does not fit is `invalid_request` about one field, with what is allowed there; nothing is done then.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from oma.domain.errors import Code, OmaError
from oma.domain.words import Words

WORD_FIELDS: Final = ("force", "end_test", "end_holders", "destination_vm_id", "snapshots", "resume", "reason")
FLAGS: Final = ("force", "end_test", "end_holders", "resume")
ALTERNATIVES: Final = ("end_holders", "end_test", "force")
"""At most one of them is said in one request: each stands for a different finding about the VM."""
REASONED: Final = ("force", "end_test", "end_holders", "snapshots")
"""Words that say why."""
LONGEST_REASON: Final = 2000
MOST_SNAPSHOTS: Final = 500
PLANNING_FIELDS: Final = ("phases", "expect_plan", "dry_run")
"""What speaks of a plan that is yet to be made; a parked run has its plan."""

_HIDDEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that turn the direction of text: a reason must read as it was written."""

_EMPTY: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and signs that show nothing."""


def read_words(values: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> Words:
    """The words among `values`; a missing or null one was not said.

    `given` is the rest of the request: what a word may not stand beside. Raises `OmaError` `invalid_request`.
    """
    said = {name: value for name, value in values.items() if name in WORD_FIELDS and value is not None}
    flags = {name: _read_flag(name, said.get(name, False)) for name in FLAGS}
    words = Words(
        force=flags["force"],
        end_test=flags["end_test"],
        end_holders=flags["end_holders"],
        resume=flags["resume"],
        destination_vm_id=_read_uuid("destination_vm_id", said["destination_vm_id"])
        if "destination_vm_id" in said
        else None,
        snapshots=_read_snapshots(said["snapshots"]) if "snapshots" in said else (),
        reason=read_reason(said["reason"]) if "reason" in said else None,
    )
    _check_together(words)
    if words.resume:
        _check_resume(words, given or {})
    return words


def read_snapshot_pair(text: str) -> tuple[str, str]:
    """`VOLUME=SNAPSHOT` as the command line takes it. Raises `invalid_request`."""
    volume_id, equals, snapshot_id = text.partition("=")
    if not equals:
        allowed = "VOLUME=SNAPSHOT, two ids of CloudStack"
        raise _invalid("snapshots", f"{text[:80]!r} is not {allowed}.", allowed)
    return _read_uuid("snapshots", volume_id.strip()), _read_uuid("snapshots", snapshot_id.strip())


def _check_together(words: Words) -> None:
    spoken = words.spoken
    alternatives = [name for name in ALTERNATIVES if name in spoken]
    if len(alternatives) > 1:
        raise _invalid(
            alternatives[1],
            f"{alternatives[0]} and {alternatives[1]} can't be said together; each is for a different finding. "
            "Say the one that the refusal named.",
            "one of end_holders, end_test and force",
        )
    if words.destination_vm_id is not None and not words.force:
        raise _invalid(
            "destination_vm_id",
            "destination_vm_id is said only with force, for a live failover whose VM was never started; "
            "add force with a reason, or leave it out.",
        )
    reasoned = [name for name in REASONED if name in spoken]
    if reasoned and words.reason is None:
        raise _invalid(
            "reason",
            f"{reasoned[0]} needs a reason, which stands in the audit for ever; say why.",
            f"1 to {LONGEST_REASON} characters",
        )
    if words.reason is not None and not spoken:
        raise _invalid(
            "reason",
            f"The reason needs a word that it is for ({', '.join(REASONED)} or resume); say the word or leave it out.",
            [*REASONED, "resume"],
        )


def _check_resume(words: Words, given: Mapping[str, Any]) -> None:
    """A parked run goes on with the plan that it has, so nothing that makes another plan may be said beside it."""
    beside = [name for name in PLANNING_FIELDS if given.get(name)]
    beside += [name for name in words.spoken if name not in ("force", "resume")]
    if beside:
        raise _invalid(
            beside[0],
            f"resume goes on with the plan that the parked run has; {beside[0]} would make another. Leave one out.",
            "resume alone, or with force and a reason",
        )


def _read_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _invalid(name, f"{name} must be true or false.", "true or false")
    return value


def _read_uuid(name: str, value: Any) -> str:
    """As CloudStack writes its ids: lower case, 8-4-4-4-12."""
    allowed = "an id of CloudStack, such as b3bb9310-1b59-4f62-97e8-cefffdfe3804"
    text = value.lower() if isinstance(value, str) else ""
    try:
        found = str(UUID(text))
    except ValueError:
        found = ""
    if not text or found != text:
        raise _invalid(name, f"{name} must be {allowed}.", allowed)
    return text


def _read_snapshots(value: Any) -> tuple[tuple[str, str], ...]:
    allowed = 'an object of volume ids and snapshot ids, {"<volume>": "<snapshot>"}'
    if not isinstance(value, Mapping) or not value:
        raise _invalid("snapshots", f"snapshots must be {allowed}, with at least one pair.", allowed)
    if len(value) > MOST_SNAPSHOTS:
        raise _invalid("snapshots", f"snapshots names {len(value)} volumes; at most {MOST_SNAPSHOTS} are allowed.")
    pairs = sorted((_read_uuid("snapshots", key), _read_uuid("snapshots", one)) for key, one in value.items())
    if len({volume_id for volume_id, _ in pairs}) < len(pairs):
        raise _invalid("snapshots", "snapshots names a volume twice; name it once.")
    taken = [snapshot_id for _, snapshot_id in pairs]
    if len(set(taken)) < len(taken):
        raise _invalid("snapshots", "snapshots names one snapshot for two volumes; each volume has its own.")
    return tuple(pairs)


def read_reason(value: Any) -> str:
    """One line that shows something. Raises `invalid_request` about `reason`."""
    allowed = f"1 to {LONGEST_REASON} characters on one line"
    if not isinstance(value, str):
        raise _invalid("reason", f"reason must be a text of {allowed}.", allowed)
    if len(value) > LONGEST_REASON:
        raise _invalid("reason", f"reason has {len(value)} characters; {allowed} are allowed.", allowed)
    if any(unicodedata.category(one) in _HIDDEN or one in _TURNING for one in value):
        raise _invalid("reason", "reason holds a control character or a line break; write it on one line.", allowed)
    text = value.strip()
    if not any(unicodedata.category(one)[0] in "LNPS" and one not in _EMPTY for one in text):
        raise _invalid("reason", "reason is blank; say why, for whoever reads the audit.", allowed)
    return text


def _invalid(field: str, sentence: str, allowed: object = None) -> OmaError:
    more = {} if allowed is None else {"allowed": allowed}
    return OmaError(Code.INVALID_REQUEST, sentence, field=field, **more)
