"""The scan proves itself: it must find a child of the daemon's own, run as another user, that holds a file. It blocks.

A `/proc` that hides other users' processes (`hidepid`) shows nothing unreadable, only nothing; this is what tells.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

from volume_daemon.holders.places import Places, Scope, Target
from volume_daemon.holders.processes import find_process
from volume_daemon.holders.report import HolderKind, Proof
from volume_daemon.holders.scan import Progress, Question, scan

NOBODY: Final = 65534
PROBE: Final = "proof"
WAITER: Final = ("/bin/cat",)
"""It waits until its input ends, and needs no shell."""


def prove(places: Places, scope: Scope, now: datetime) -> Proof:
    """Scans for a file that a child holds. With the scope `readable` a child of the own user is enough."""
    other_user = os.geteuid() == 0
    if not other_user and scope == "everything":
        return Proof(False, "the daemon is not root: it can neither run a process as another user nor see into others")
    try:
        return _prove(places, now, NOBODY if other_user else None)
    except OSError as error:
        if other_user and scope == "readable":
            return _prove_again(places, now)
        return Proof(False, f"a process as another user could not be run to prove the scan: {error.strerror or error}")


def _prove_again(places: Places, now: datetime) -> Proof:
    try:
        return _prove(places, now, None)
    except OSError as error:
        return Proof(False, f"a process could not be run to prove the scan: {error.strerror or error}")


def _prove(places: Places, now: datetime, user: int | None) -> Proof:
    with tempfile.TemporaryFile() as file, _child_with(file.fileno(), user) as child:
        found = os.fstat(file.fileno())
        target = Target(PROBE, PROBE, PROBE, file=(found.st_dev, found.st_ino))
        seen = scan(Question({}, extra=(target,)), places, "readable", Progress())
        process = find_process(Path("/proc"), child.pid)
        held = [one for one in seen.holders.get(PROBE, ()) if one.kind is HolderKind.PROCESS]
        whose = "another user" if user is not None else "the same user"
        if process is not None and any(one.process == process.id for one in held):
            text = f"the scan found its own child, run as {whose}, among {seen.processes} processes"
            return Proof(True, text, now)
        return Proof(False, f"the scan did not find its own child, run as {whose}, among {seen.processes} processes")


@contextmanager
def _child_with(handle: int, user: int | None) -> Iterator[subprocess.Popen[bytes]]:
    """Raises `OSError` where it cannot be run."""
    child = subprocess.Popen(
        WAITER,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        pass_fds=(handle,),
        user=user,
        group=user,
        extra_groups=() if user is not None else None,
    )
    try:
        yield child
    finally:
        if child.stdin is not None:
            child.stdin.close()
        child.wait()
