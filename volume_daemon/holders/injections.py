"""Which processes belong to a driver injection, and which serve NBD: decided by their command, pure.

The injection runs on the OMA as `inject-virtio-drivers.sh` or `virt-v2v…` (`virt-v2v-in-place`); what has the device
open is often a child of it: the emulator, `dd`, or the `qemu-nbd` or `nbdkit` through which virt-v2v reaches its disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from volume_daemon.holders.processes import Process

SCRIPT: Final = "inject-virtio-drivers.sh"
PROGRAM: Final = re.compile(r"^virt-v2v[A-Za-z0-9_.-]*$")
SHELLS: Final = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh"})
NBD_SERVERS: Final = frozenset({"nbd-server", "nbdkit", "qemu-nbd"})
EXPORT_SERVER: Final = "nbd-server"
"""The one that serves the OMA's exports: never ended, in whatever tree it is."""

Commands = Callable[[int], Sequence[str]]


def is_injection(command: Sequence[str]) -> bool:
    """The program itself, or a shell that runs it as its script; being named among other arguments is not enough."""
    if not command:
        return False
    name = _base(command[0])
    if name in SHELLS:
        script = _script_of(command)
        return script is not None and _is_known(_base(script))
    return _is_known(name)


def _script_of(command: Sequence[str]) -> str | None:
    for argument in command[1:]:
        if argument == "-c" or (argument.startswith("-") and not argument.startswith("--") and "c" in argument):
            return None  # the next argument is a text, not a script
        if not argument.startswith(("-", "+")):
            return argument
    return None


def _is_known(name: str) -> bool:
    return name == SCRIPT or PROGRAM.match(name) is not None


def is_nbd_server(name: str, command: Sequence[str]) -> bool:
    return name in NBD_SERVERS or (bool(command) and _base(command[0]) in NBD_SERVERS)


def is_export_server(name: str, command: Sequence[str]) -> bool:
    return name == EXPORT_SERVER or (bool(command) and _base(command[0]) == EXPORT_SERVER)


def find_root(pid: int, table: Mapping[int, Process], commands: Commands) -> int | None:
    """The topmost injection among a process and its ancestors; None: it belongs to none."""
    found, seen = None, set[int]()
    while pid in table and pid not in seen and pid > 1:
        seen.add(pid)
        if is_injection(commands(pid)):
            found = pid
        pid = table[pid].parent
    return found


def _base(path: str) -> str:
    return path.rpartition("/")[2].removeprefix("-")
