"""The emergency stop: pause everything, an operation or a VM, and let it go on. It outlives restarts.

No new run is begun and none is claimed under a pause; those at work end at their next safe point, keep what they have
journaled, and go on once it is lifted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oma.domain.controls import ControlChange, Pause, PauseSubject, Scope, build_paused, find_pause
from oma.domain.errors import ConcurrentChange
from oma.service.deps import Deps
from oma.service.names import get_context


@dataclass(frozen=True, slots=True)
class ControlRequest:
    """What a person wants paused or lifted, validated; a VM by its name, and its context where names repeat."""

    scope: Scope
    operation: str | None = None
    vm_name: str | None = None
    context_id: str | None = None
    reason: str | None = None
    requested_by: str = "api"
    correlation_id: str = ""


@dataclass(frozen=True, slots=True)
class ControlAnswer:
    """What was done, in a sentence, and everything that is paused now."""

    changed: bool
    sentence: str
    pauses: tuple[Pause, ...]


async def list_pauses(deps: Deps) -> tuple[Pause, ...]:
    """Those in force, oldest first."""
    return tuple(await deps.controls.list_pauses())


async def pause(deps: Deps, request: ControlRequest) -> ControlAnswer:
    """From here on nothing that it covers is begun, and what runs in this daemon is told to stop.

    Raises `vm_not_found` and `ambiguous_vm_name`.
    """
    what = await _find_subject(deps, request)
    made = await deps.controls.pause(_change(deps, what, request))
    await read_pauses(deps)
    sentence = f"{made.sentence.rstrip('.')}. Runs end at their next safe point. Let go on with: {what.lift_command}"
    return ControlAnswer(changed=True, sentence=sentence, pauses=deps.brakes.pauses)


async def resume(deps: Deps, request: ControlRequest) -> ControlAnswer:
    """Lifts exactly this pause; one that is not there is no error, so that the call may be repeated."""
    what = await _find_paused(deps, request) or await _find_subject(deps, request)
    try:
        lifted = await deps.controls.lift(_change(deps, what, request))
    except ConcurrentChange:
        lifted = None
    await read_pauses(deps)
    done = f"The pause of {what.words} is lifted" if lifted else f"No pause of {what.words} was in force"
    left = deps.brakes.pauses
    return ControlAnswer(changed=lifted is not None, sentence=f"{done}.{_say_left(left)}", pauses=left)


async def refuse_paused(deps: Deps, context_id: str, vm_name: str) -> None:
    """Raises `paused` where a pause keeps this VM's runs from being begun."""
    found = find_pause(await deps.controls.list_pauses(), context_id)
    if found is not None:
        raise build_paused(found, vm_name)


async def read_pauses(deps: Deps) -> str | None:
    """Reads what is paused, also by other daemons: pulls the brakes of runs, wakes the worker where one was lifted."""
    before = deps.brakes.pauses
    pauses = await deps.controls.list_pauses()
    if deps.brakes.set_pauses(pauses):
        deps.wake.set()
    if [pause.what for pause in before] == [pause.what for pause in pauses]:
        return None
    return f"Paused now: {_listed(pauses)}." if pauses else "Nothing is paused any more."


async def _find_subject(deps: Deps, request: ControlRequest) -> PauseSubject:
    if request.scope is Scope.ALL:
        return PauseSubject(Scope.ALL)
    if request.scope is Scope.OPERATION:
        return PauseSubject(Scope.OPERATION, request.operation or "")
    context = await get_context(deps, request.vm_name or "", request.context_id)
    return PauseSubject(Scope.VM, context.context_id, context.vm_name)


async def _find_paused(deps: Deps, request: ControlRequest) -> PauseSubject | None:
    """A held VM by its name alone where it is the only one held under it; its records may be gone."""
    if request.scope is not Scope.VM:
        return None
    found = [
        pause.what
        for pause in await deps.controls.list_pauses()
        if pause.what.scope is Scope.VM
        and pause.what.vm_name == request.vm_name
        and request.context_id in {None, pause.what.subject}
    ]
    return found[0] if len(found) == 1 else None


def _change(deps: Deps, what: PauseSubject, request: ControlRequest) -> ControlChange:
    return ControlChange(what, request.requested_by, request.reason, deps.clock.now(), request.correlation_id)


def _say_left(pauses: Sequence[Pause]) -> str:
    return f" Still paused: {_listed(pauses)}." if pauses else ""


def _listed(pauses: Sequence[Pause]) -> str:
    return ", ".join(pause.what.words for pause in pauses)
