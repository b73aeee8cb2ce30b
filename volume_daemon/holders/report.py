"""What a scan for holders says, the same for server and client; times aware and in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from volume_daemon.models import parse_time, time_text

Json = Mapping[str, Any]


class HolderState(StrEnum):
    """`none` is said only by a proven scan that could read everything."""

    NONE = "none"
    HELD = "held"
    UNKNOWN = "unknown"


class HolderKind(StrEnum):
    PROCESS = "process"
    MOUNT = "mount"
    LOOP = "loop"
    DEVICE_MAPPER = "device_mapper"
    MD = "md"
    BLOCK = "block"
    """Another block device built on it, such as bcache."""
    FILESYSTEM = "filesystem"
    """A file system of several devices that has this one open."""
    SWAP = "swap"
    NBD_CLIENT = "nbd_client"
    KERNEL = "kernel"
    """The kernel has it claimed, and nothing that can be seen explains why: a lazily unmounted file system."""


class Role(StrEnum):
    """What is known of a process that holds a device."""

    INJECTION = "injection"
    """Part of the process tree of a driver injection."""
    NBD_SERVER = "nbd_server"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process as seen: the number alone may by now stand for another one."""

    pid: int
    start_ticks: int
    """Clock ticks between boot and start (`/proc/<pid>/stat`, field 22)."""

    def as_json(self) -> dict[str, Any]:
        return {"pid": self.pid, "start_ticks": self.start_ticks}

    @classmethod
    def parse(cls, data: Json) -> ProcessId:
        return cls(int(data["pid"]), int(data["start_ticks"]))


@dataclass(frozen=True, slots=True)
class Holder:
    """One reason why the device must not be taken away. Fields that a kind does not have are None or empty."""

    kind: HolderKind
    name: str
    """The process's name, the mount point, the block device, the client's address."""
    through: str | None = None
    """The partition or device over the volume's own through which it holds; None: the device itself."""
    since: datetime | None = None
    """A process: its start, before which it cannot have held. Others: when a scan of this daemon first saw it."""
    first_seen_at: datetime | None = None
    process: ProcessId | None = None
    started_at: datetime | None = None
    command: str | None = None
    user: str | None = None
    access: tuple[str, ...] = ()
    """How a process holds: `fd 3 read-write`, `mapped`."""
    role: Role | None = None
    tree: ProcessId | None = None
    """The root of the injection's process tree."""
    tree_command: str | None = None
    endable: bool = False
    why_not: str | None = None
    """Why `holders/end` would refuse this process."""
    namespace: int | None = None
    """The mount namespace (its inode number) that a mount was seen in."""
    detail: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind.value,
            "name": self.name,
            "through": self.through,
            "since": _time(self.since),
            "first_seen_at": _time(self.first_seen_at),
            "pid": self.process.pid if self.process else None,
            "start_ticks": self.process.start_ticks if self.process else None,
            "started_at": _time(self.started_at),
            "command": self.command,
            "user": self.user,
            "access": list(self.access),
            "role": self.role.value if self.role else None,
            "tree": {**self.tree.as_json(), "command": self.tree_command} if self.tree else None,
            "endable": self.endable,
            "why_not": self.why_not,
            "namespace": self.namespace,
            "detail": self.detail,
        }

    @classmethod
    def parse(cls, data: Json) -> Holder:
        tree = data.get("tree")
        return cls(
            kind=HolderKind(data["kind"]),
            name=str(data["name"]),
            through=_text(data.get("through")),
            since=_moment(data.get("since")),
            first_seen_at=_moment(data.get("first_seen_at")),
            process=ProcessId.parse(data) if data.get("pid") is not None else None,
            started_at=_moment(data.get("started_at")),
            command=_text(data.get("command")),
            user=_text(data.get("user")),
            access=tuple(str(one) for one in data.get("access") or ()),
            role=Role(data["role"]) if data.get("role") else None,
            tree=ProcessId.parse(tree) if tree else None,
            tree_command=_text(tree.get("command")) if tree else None,
            endable=data.get("endable") is True,
            why_not=_text(data.get("why_not")),
            namespace=data.get("namespace"),
            detail=_text(data.get("detail")),
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether the daemon's scan found a child of its own, run as another user, that held a file."""

    ok: bool
    detail: str
    proven_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "detail": self.detail, "proven_at": _time(self.proven_at)}

    @classmethod
    def parse(cls, data: Json) -> Proof:
        return cls(data["ok"] is True, str(data["detail"]), _moment(data.get("proven_at")))


@dataclass(frozen=True, slots=True)
class HolderReport:
    """Who holds one volume's device, from one scan that began at `scanned_at`."""

    volume_id: str
    device: str
    """The link that names the volume."""
    target: str | None
    """What the link leads to; None where that could not be told."""
    state: HolderState
    holders: tuple[Holder, ...]
    unread: tuple[str, ...]
    """What could not be read, a sentence each; with any of it the state is `unknown`, whoever was found."""
    scanned_at: datetime
    proof: Proof
    passed_over: int = 0
    """Unreadable things that did not count, because the setting `holder_scope` is `readable`."""

    def as_json(self) -> dict[str, Any]:
        return {
            "volume_id": self.volume_id,
            "device": self.device,
            "target": self.target,
            "state": self.state.value,
            "holders": [holder.as_json() for holder in self.holders],
            "unread": list(self.unread),
            "scanned_at": time_text(self.scanned_at),
            "proof": self.proof.as_json(),
            "passed_over": self.passed_over,
        }

    @classmethod
    def parse(cls, data: Json) -> HolderReport:
        """Raises `KeyError`, `TypeError` or `ValueError` for what is no report."""
        return cls(
            volume_id=str(data["volume_id"]),
            device=str(data["device"]),
            target=_text(data.get("target")),
            state=HolderState(data["state"]),
            holders=tuple(Holder.parse(one) for one in data["holders"]),
            unread=tuple(str(one) for one in data["unread"]),
            scanned_at=parse_time(data["scanned_at"]),
            proof=Proof.parse(data["proof"]),
            passed_over=int(data.get("passed_over") or 0),
        )


def _time(value: datetime | None) -> str | None:
    return time_text(value) if value else None


def _moment(value: object) -> datetime | None:
    return parse_time(value) if value else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
