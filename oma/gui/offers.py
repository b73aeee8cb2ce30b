"""Words that only a person may say, offered only where a refusal shows that they would help; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from oma.domain.errors import Code, Refusal
from oma.domain.spoken import ALTERNATIVES, read_words
from oma.domain.words import Words

SNAPSHOT_FIELD: Final = "snapshot:"
"""Before the volume's id in the name of a form's field."""
SAID: Final = "yes"
"""The value of a word's field in a form."""
STARTED: Final = "started"
"""In the evidence of a live failover: by what its VM was started; None where it never was."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An untracked snapshot; one that would not pass is shown with the reasons, but can't be chosen."""

    snapshot_id: str
    words: str
    problems: tuple[str, ...]
    may_be_named: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidates of one volume."""

    volume_id: str
    volume_name: str
    field: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """One word with the form that says it. `kept` are fields of words that were said before."""

    word: str
    title: str
    explanation: str
    button: str
    choices: tuple[Choice, ...] = ()
    typed_vm: bool = False
    kept: tuple[tuple[str, str], ...] = ()
    reason: str = ""


def offers_for(refusals: Iterable[Refusal], said: Words, names: Mapping[str, str]) -> tuple[Offer, ...]:
    """What a person may say about these refusals, each word once. `names`: volume id → the volume's name."""
    found: dict[str, Offer] = {}
    choices: list[Choice] = []
    for refusal in refusals:
        for word in _words_for(refusal):
            found.setdefault(word, _offer(word, said))
        choices += _choices(refusal, names)
    if choices:
        found["snapshots"] = _offer("snapshots", said, tuple(choices))
    return tuple(found.values())


def force_offer(said: Words) -> Offer:
    """For a VM whose last run failed."""
    return _offer("force", said)


def read_form(form: Mapping[str, Any], *, resume: bool = False) -> Words:
    """The words of a posted form. Raises `invalid_request` as for any other request."""
    values: dict[str, Any] = {name: _read_flag(form[name]) for name in ALTERNATIVES if form.get(name)}
    if resume:
        values["resume"] = True
    snapshots = {
        name.removeprefix(SNAPSHOT_FIELD): value
        for name, value in form.items()
        if name.startswith(SNAPSHOT_FIELD) and value
    }
    if snapshots:
        values["snapshots"] = snapshots
    for name in ("destination_vm_id", "reason"):
        text = str(form.get(name) or "").strip()
        if text:
            values[name] = text
    return read_words(values)


def _read_flag(value: Any) -> Any:
    """What our own forms send, and no other text: one that says "no" must not pass for a yes."""
    return True if value == SAID else value


def form_fields(words: Words) -> tuple[tuple[str, str], ...]:
    """The hidden fields that say the same again."""
    flags = [(name, SAID) for name in words.spoken if name in ALTERNATIVES]
    vm = [("destination_vm_id", words.destination_vm_id)] if words.destination_vm_id else []
    return (*flags, *vm, *((f"{SNAPSHOT_FIELD}{volume}", snapshot) for volume, snapshot in words.snapshots))


TEXTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "end_test": (
        "End the drill",
        (
            "The test failover finished well and its VM may be in use. If nobody needs it any more, the drill can be "
            "ended here: the VM is stopped and destroyed, and the disks go back to their snapshots."
        ),
        "Show the plan that ends the drill",
    ),
    "end_holders": (
        "End the driver injection",
        (
            "What holds the device is this VM's own driver injection. If nobody waits for it, it can be ended: first "
            "politely, after 10 seconds for good. No other process is ever touched."
        ),
        "Show the plan that ends the injection",
    ),
    "force": (
        "Go on with force",
        (
            "After a failed run, force passes exactly four things: a test VM that won't stop, a snapshot that won't "
            "go, a test VM that won't be destroyed, and an export that won't come back. Each is left behind and "
            "listed. It never passes anything unknown."
        ),
        "Show the plan with force",
    ),
    "live": (
        "Empty the VM of the live failover",
        (
            "CloudStack shows that this VM was never started. It can be emptied: its disks go home, the VM itself is "
            "left as it is. Type its id as CloudStack shows it."
        ),
        "Show the plan that empties the VM",
    ),
    "snapshots": (
        "Name the snapshot",
        (
            "No tracked snapshot can be used, but there are some that a test failover may have made. Choose one only "
            "if you know that it is the state to go back to; it is checked like a tracked one."
        ),
        "Show the plan with this snapshot",
    ),
}
"""Word → title, explanation and button."""


RESUME: Final = Offer(
    "resume", "Go on", "Nothing stands in the way any more: the run goes on where it stopped.", "Go on with this run"
)


def _offer(word: str, said: Words, choices: tuple[Choice, ...] = ()) -> Offer:
    title, explanation, button = TEXTS[word]
    chosen = "force" if word == "live" else word
    others = {name for name, _ in form_fields(said) if chosen in ALTERNATIVES and name in ALTERNATIVES}
    fields = {choice.field for choice in choices}
    kept = tuple(pair for pair in form_fields(said) if pair[0] not in others | fields)
    return Offer(
        word=chosen,
        title=title,
        explanation=explanation,
        button=button,
        choices=choices,
        typed_vm=word == "live",
        kept=kept,
        reason=said.reason or "",
    )


def _words_for(refusal: Refusal) -> Iterator[str]:
    evidence = refusal.evidence
    if refusal.code is Code.TEST_FAILOVER_ACTIVE:
        yield "end_test"
    if refusal.code is Code.DEVICE_IN_USE and any(one.get("endable") for one in evidence.get("holders", ())):
        yield "end_holders"
    if refusal.code is Code.LIVE_FAILOVER and evidence.get(STARTED, "unknown") is None:
        yield "live"


def _choices(refusal: Refusal, names: Mapping[str, str]) -> Iterator[Choice]:
    candidates = refusal.evidence.get("candidates")
    volume_id = refusal.evidence.get("volume_id")
    if not candidates or not isinstance(volume_id, str):
        return
    yield Choice(
        volume_id=volume_id,
        volume_name=names.get(volume_id, volume_id),
        field=f"{SNAPSHOT_FIELD}{volume_id}",
        candidates=tuple(
            Candidate(
                snapshot_id=str(one["snapshot_id"]),
                words=", ".join(str(one[key]) for key in ("name", "created", "state") if one.get(key)),
                problems=tuple(one.get("problems", ())),
                may_be_named=bool(one.get("would_pass")),
            )
            for one in candidates
        ),
    )
