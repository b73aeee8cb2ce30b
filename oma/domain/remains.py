"""What can be read of a run whose own rows can't be, or can't be true: enough to end it for good."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from oma.domain.actions import Action, ActionKind
from oma.domain.leaks import Leak
from oma.domain.records import ReplicationRecord
from oma.domain.states import ActionState, JobState

MAY_RUN: frozenset[ActionState] = frozenset({ActionState.STARTED, ActionState.EXECUTION_FAILED})


@dataclass(frozen=True, slots=True)
class Remains:
    """`actions` are those that can be read, `unreadable` the ids of the others; `volume_ids` what it has claimed."""

    job_id: str
    context_id: str
    vm_name: str
    state: JobState
    fence: int
    parked_at: datetime | None
    reverted: bool
    actions: tuple[Action, ...]
    unreadable: tuple[str, ...]
    volume_ids: tuple[str, ...]

    @property
    def uncertain(self) -> tuple[Action, ...]:
        """Begun, and not known how they ended."""
        return tuple(one for one in self.actions if one.state in MAY_RUN)

    @property
    def may_have_reverted(self) -> bool:
        begun = (one for one in self.actions if one.intent_at is not None)
        return self.reverted or bool(self.unreadable) or any(one.kind is ActionKind.REVERT_SNAPSHOT for one in begun)


@dataclass(frozen=True, slots=True)
class RunGivenUp:
    """A person's word that nothing of a run is gone on with; every disk of its VM is to be copied whole.

    `sentence` and `next_step` are its last words; `unmarkings` take off what it marked, as far as that can be read. It
    was judged at this `fence`, with no other open replications than the `dead` ones. `leaks`: volumes that are gone.
    """

    volume_ids: tuple[str, ...]
    sentence: str
    next_step: str
    fence: int
    unmarkings: tuple[Action, ...] = ()
    dead: tuple[ReplicationRecord, ...] = ()
    leaks: tuple[Leak, ...] = ()
