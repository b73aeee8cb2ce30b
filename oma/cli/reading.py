"""The parts of the API's job documents that the command line shows; unknown keys are left alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from oma.domain.states import JobState

NOT_ENDED: Final = frozenset({JobState.QUEUED.value, JobState.RUNNING.value})
GOOD_ACTION_STATES: Final = frozenset({"EXECUTED", "MANUAL_MARKED_AS_EXECUTED"})
FAILED_ACTION_STATES: Final = frozenset({"EXECUTION_FAILED", "ROLLBACK_FAILED"})


@dataclass(frozen=True, slots=True)
class ActionView:
    phase: str
    kind: str
    state: str
    target: Mapping[str, Any]
    sentence: str
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class StepView:
    name: str
    status: str
    duration_s: float | None
    error: str
    actions: tuple[ActionView, ...]


@dataclass(frozen=True, slots=True)
class JobView:
    """A job with its phases; `document` is what the API said, word for word."""

    id: str
    vm_name: str
    state: str
    phase: str
    steps: tuple[StepView, ...]
    document: Mapping[str, Any]

    @property
    def ended(self) -> bool:
        return self.state not in NOT_ENDED

    @property
    def result(self) -> Mapping[str, Any]:
        return self.document.get("result") or {}

    @property
    def error(self) -> Mapping[str, Any]:
        return self.document.get("error") or {}


def read_job(document: Mapping[str, Any]) -> JobView:
    """`GET /jobs/{id}`: steps and actions stand side by side there; here each phase holds its own."""
    actions = [_read_action(one) for one in document.get("actions") or ()]
    return JobView(
        id=str(document["id"]),
        vm_name=str(document["vm_name"]),
        state=str(document["status"]),
        phase=str(document.get("phase") or ""),
        steps=tuple(_read_step(one, actions) for one in document.get("steps") or ()),
        document=document,
    )


def _read_step(step: Mapping[str, Any], actions: list[ActionView]) -> StepView:
    name = str(step["name"])
    return StepView(
        name=name,
        status=str(step["status"]),
        duration_s=step.get("duration_seconds"),
        error=str(step.get("error_message") or ""),
        actions=tuple(action for action in actions if action.phase == name),
    )


def _read_action(action: Mapping[str, Any]) -> ActionView:
    return ActionView(
        phase=str(action["phase"]),
        kind=str(action["kind"]),
        state=str(action["state"]),
        target=action.get("target") or {},
        sentence=str(action.get("sentence") or ""),
        error=action.get("error"),
    )
