"""The emergency stop and the hold: what a person has paused, and which jobs that keeps from going on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from oma.domain.errors import Code, OmaError
from oma.domain.jobs import OPERATION
from oma.domain.verdict import shell_word

OPERATIONS: Final = (OPERATION,)
"""What may be paused by its name."""


class Scope(StrEnum):
    """How much a pause covers; of a VM it is called a hold."""

    ALL = "all"
    OPERATION = "operation"
    VM = "vm"


@dataclass(frozen=True, slots=True)
class PauseSubject:
    """What is paused. `subject` is empty for all, else the operation's name or the VM context's id."""

    scope: Scope
    subject: str = ""
    vm_name: str | None = None

    def covers(self, context_id: str, operation: str = OPERATION) -> bool:
        if self.scope is Scope.ALL:
            return True
        return self.subject == (context_id if self.scope is Scope.VM else operation)

    @property
    def words(self) -> str:
        if self.scope is Scope.ALL:
            return "everything"
        return f"the VM {self.vm_name}" if self.scope is Scope.VM else f"the operation {self.subject}"

    @property
    def lift_command(self) -> str:
        if self.scope is Scope.VM:
            return f"oma resume --vm {shell_word(self.vm_name or '')} --context-id {shell_word(self.subject)}"
        return f"oma resume --operation {self.subject}" if self.scope is Scope.OPERATION else "oma resume"


@dataclass(frozen=True, slots=True)
class Pause:
    """A row of `oma_controls` that has not been lifted."""

    what: PauseSubject
    reason: str
    actor: str
    since: datetime

    @property
    def sentence(self) -> str:
        return f"{_begun(self.what.words)} is paused by {self.actor}: {self.reason}"

    def as_json(self) -> dict[str, Any]:
        """As evidence of a refusal and as the API lists it, but for the time's form."""
        vm = self.what.scope is Scope.VM
        return {
            "scope": self.what.scope.value,
            "operation": self.what.subject if self.what.scope is Scope.OPERATION else None,
            "vm_name": self.what.vm_name,
            "context_id": self.what.subject if vm else None,
            "reason": self.reason,
            "by": self.actor,
            "since": self.since.isoformat(),
            "lift": self.what.lift_command,
        }


@dataclass(frozen=True, slots=True)
class ControlChange:
    """A person pauses something, or lifts its pause."""

    what: PauseSubject
    actor: str
    reason: str | None
    at: datetime
    correlation_id: str = ""


def find_pause(pauses: Iterable[Pause], context_id: str, operation: str = OPERATION) -> Pause | None:
    """The widest one that keeps this VM's job from going on."""
    order = list(Scope)
    covering = [pause for pause in pauses if pause.what.covers(context_id, operation)]
    return min(covering, key=lambda pause: order.index(pause.what.scope), default=None)


def build_paused(pause: Pause, vm_name: str) -> OmaError:
    """Why no run of this VM is begun now, and how it can be."""
    since = pause.since.isoformat(timespec="seconds").replace("+00:00", "Z")
    return OmaError(
        Code.PAUSED,
        f"{pause.sentence.rstrip('.')} (since {since}). Nothing was touched.",
        vm_name=vm_name,
        next=f"Wait until the pause is lifted, or lift it: {pause.what.lift_command}",
        evidence=pause.as_json(),
    )


def _begun(words: str) -> str:
    return words[0].upper() + words[1:]
