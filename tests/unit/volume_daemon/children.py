"""Real processes that hold a device, each of which has said that it does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from volume_daemon.holders.processes import parse_stat
from volume_daemon.holders.report import ProcessId

READY = "ready"
INJECTION_SCRIPT = "inject-virtio-drivers.sh"


@contextmanager
def child(*command: str | Path, user: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that prints `ready` and then waits for the end of its input; its group is killed at the end."""
    process = subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        user=user,
        group=user,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == READY
        yield process
    finally:
        subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=False)
        process.stdin.close()
        process.stdout.close()
        process.wait()


def id_of(process: subprocess.Popen[str]) -> ProcessId:
    return parse_stat(Path(f"/proc/{process.pid}/stat").read_bytes()).id


def write_script(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("\n".join(["#!/bin/bash", *lines]) + "\n")
    path.chmod(0o755)
    return path


def hung_injection(folder: Path, *, ignores_term: bool = False) -> Path:
    """Holds its argument open in itself and in a child, and waits for ever, as a hung injection does."""
    return hung_script(folder / INJECTION_SCRIPT, ignores_term=ignores_term)


def hung_script(path: Path, *, ignores_term: bool = False) -> Path:
    """The same under any name."""
    trap = ["trap '' TERM"] if ignores_term else []
    lines = [*trap, 'exec 3<>"$1"', "exec 4<&0", "cat <&4 >/dev/null &", f"echo {READY}", "while :; do wait; done"]
    return write_script(path, lines)
