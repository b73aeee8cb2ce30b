"""Faults to inject: which call they hit, how often, and what happens to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FaultKind(StrEnum):
    JOB_FAIL = "job_fail"
    """The job fails; a revert that fails with 530 leaves `fraction` of the content reverted, with 431 none."""
    JOB_FAIL_APPLIED = "job_fail_applied"
    """The job is marked failed although its effect is applied, `delay_s` after the job's end."""
    JOB_NO_EFFECT = "job_no_effect"
    """The job succeeds and CloudStack believes it, but the hypervisor did nothing (#3290, #4356)."""
    JOB_LATE = "job_late"
    """The job waits `delay_s` outside of its VM's queue before it runs, with what it finds by then (#14214)."""
    JOB_STUCK = "job_stuck"
    """The job stays pending for ever, with `delay_s` only that much longer; its VM's queue waits with it."""
    SYNC_ERROR = "sync_error"
    """The call is refused before a job exists."""
    LOST_ANSWER = "lost_answer"
    """The call is executed, then the connection is cut."""
    LOST_REQUEST = "lost_request"
    """The connection is cut and nothing is executed."""
    DELAY = "delay"
    """The call is executed `delay_s` late."""
    HTTP_STATUS = "http_status"
    """Something in front of the server answers with `errorcode` and HTML; nothing is executed."""
    NON_JSON = "non_json"
    """The call is executed and answered with 200 and HTML."""


JOB_KINDS = frozenset(
    {
        FaultKind.JOB_FAIL,
        FaultKind.JOB_FAIL_APPLIED,
        FaultKind.JOB_LATE,
        FaultKind.JOB_NO_EFFECT,
        FaultKind.JOB_STUCK,
    }
)
MODEL_KINDS = JOB_KINDS | {FaultKind.SYNC_ERROR}


class FaultFault(ValueError):
    """A fault description that makes no sense; the text says why."""


@dataclass(slots=True)
class Fault:
    """One injected fault; `times` None: every matching call."""

    kind: FaultKind
    command: str
    times: int | None = 1
    match: Mapping[str, str] = field(default_factory=dict)
    errorcode: int | None = None
    cserrorcode: int | None = None
    errortext: str | None = None
    delay_s: float | None = None
    fraction: float = 0.5
    no_result: bool = False
    """Leave `jobresult` out of the failed job, as some failures of real servers do."""

    def matches(self, command: str, params: Mapping[str, str]) -> bool:
        if self.command not in {"*", command}:
            return False
        return all(params.get(name) == value for name, value in self.match.items())

    def as_json(self) -> dict[str, Any]:
        return {**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}, "match": dict(self.match)}


def fault_from_json(row: Mapping[str, Any]) -> Fault:
    """Raises `FaultFault` for unknown keys, an unknown kind or a missing command."""
    known = {f.name for f in dataclasses.fields(Fault)}
    unknown = sorted(set(row) - known)
    if unknown:
        raise FaultFault(f"unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    try:
        kind = FaultKind(row.get("kind", ""))
    except ValueError:
        raise FaultFault(f"kind must be one of {', '.join(FaultKind)}") from None
    if not isinstance(row.get("command"), str):
        raise FaultFault("command must name a CloudStack command, or * for all")
    match = row.get("match", {})
    if not isinstance(match, Mapping):
        raise FaultFault("match must be an object of parameter: value")
    fields = {**row, "kind": kind, "match": {str(name).lower(): str(value) for name, value in match.items()}}
    return Fault(**fields)


class FaultList:
    """The faults that wait for a call; taking one uses it up."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        self._waiting.append(fault)

    def clear(self) -> None:
        self._waiting.clear()

    def waiting(self) -> list[Fault]:
        return list(self._waiting)

    def take(self, command: str, params: Mapping[str, str]) -> tuple[Fault, ...]:
        """Faults that hit this call, at most one of each kind, oldest first; parameter names are lower-case."""
        if not self._waiting:
            return ()
        taken: dict[FaultKind, Fault] = {}
        for fault in self._waiting:
            if fault.kind not in taken and fault.matches(command, params):
                taken[fault.kind] = fault
                if fault.times is not None:
                    fault.times -= 1
        self._waiting = [fault for fault in self._waiting if fault.times is None or fault.times > 0]
        return tuple(taken.values())

    def restore(self, faults: Iterable[Fault]) -> None:
        self._waiting = list(faults)


def pick(faults: Iterable[Fault], kinds: Iterable[FaultKind]) -> Fault | None:
    wanted = frozenset(kinds)
    return next((fault for fault in faults if fault.kind in wanted), None)
