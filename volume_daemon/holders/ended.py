"""What `holders/end` did, the same for server and client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from volume_daemon.holders.report import HolderReport, ProcessId

Json = Mapping[str, Any]


class EndOutcome(StrEnum):
    """What became of a process tree that was to be ended."""

    TERMINATED = "terminated"
    """It ended after TERM."""
    KILLED = "killed"
    GONE = "gone"
    """No process of that number and start time was there any more; nothing was sent."""
    SURVIVED = "survived"
    """It is still there after KILL: it hangs in the kernel."""


@dataclass(frozen=True, slots=True)
class EndedTree:
    """One wanted holder with the process tree that went with it."""

    asked: ProcessId
    outcome: EndOutcome
    command: str | None = None
    members: tuple[ProcessId, ...] = ()
    remaining: tuple[ProcessId, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            **self.asked.as_json(),
            "outcome": self.outcome.value,
            "command": self.command,
            "members": [one.as_json() for one in self.members],
            "remaining": [one.as_json() for one in self.remaining],
        }

    @classmethod
    def parse(cls, data: Json) -> EndedTree:
        return cls(
            asked=ProcessId.parse(data),
            outcome=EndOutcome(data["outcome"]),
            command=str(data["command"]) if data.get("command") is not None else None,
            members=tuple(ProcessId.parse(one) for one in data["members"]),
            remaining=tuple(ProcessId.parse(one) for one in data["remaining"]),
        )


@dataclass(frozen=True, slots=True)
class EndReport:
    """What was ended, and who holds the device by a scan begun afterwards."""

    request_id: str
    volume_id: str
    ended: tuple[EndedTree, ...]
    remaining: HolderReport

    def as_json(self) -> dict[str, Any]:
        return {
            "request_id": self.request_id,
            "volume_id": self.volume_id,
            "ended": [one.as_json() for one in self.ended],
            "remaining": self.remaining.as_json(),
        }

    @classmethod
    def parse(cls, data: Json) -> EndReport:
        """Raises `KeyError`, `TypeError` or `ValueError` for what is no such report."""
        return cls(
            request_id=str(data["request_id"]),
            volume_id=str(data["volume_id"]),
            ended=tuple(EndedTree.parse(one) for one in data["ended"]),
            remaining=HolderReport.parse(data["remaining"]),
        )
