"""Who may hold a disk's device on the OMA: a hung injection, a process elsewhere, a mount, a loop device. All real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oma.demo.programs import clean_environment
from oma.demo.stack import Stack
from oma.demo.story import Disk
from oma.demo.threads import in_thread, wait_until

SCRIPT: Final = "inject-virtio-drivers.sh"
READY: Final = "ready"
WOKEN: Final = "the hung injection woke up and wrote this"
ENDING_S: Final = 5.0

INJECTION: Final = f"""#!/bin/bash
# It has its disk open, in itself and in a child, and hangs. SIGUSR1 wakes it: then it writes.
# It ends with its input, so that it never outlives the demo.
exec 3<>"$1" 4<&0
cat <&4 >/dev/null &
trap 'printf "%s" "{WOKEN}" >&3' USR1
echo {READY}
while kill -0 $! 2>/dev/null; do wait $!; done
"""
ELSEWHERE: Final = f'mount -t tmpfs none /mnt && exec 3<>"$1" && echo {READY} && read -r _'
"""In a mount namespace of its own."""

Holder = Callable[[Stack, Disk], AbstractAsyncContextManager[str]]
"""Holds the disk's device inside of the block; gives what the refusal has to name."""


@dataclass(frozen=True, slots=True)
class Injection:
    """The hung process and its tree, which is a session of its own."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    def wake(self) -> bool:
        """Sends it the signal after which it writes; False where nobody is there to get it."""
        if not self.runs:
            return False
        self.process.send_signal(signal.SIGUSR1)
        return True

    def list_tree(self) -> list[int]:
        """Those of its session that run still; blocks."""
        return [pid for pid in _list_pids() if _session_of(pid) == self.pid]


@asynccontextmanager
async def hung_injection(stack: Stack, disk: Disk) -> AsyncIterator[Injection]:
    folder = stack.directory / f"injection-{disk.link}"
    script = folder / SCRIPT
    await in_thread(_write_script, script)
    process = await in_thread(_hold, [str(script), str(stack.device_root / disk.link)])
    try:
        yield Injection(process)
    finally:
        await in_thread(_end, process)


@asynccontextmanager
async def process_elsewhere(stack: Stack, disk: Disk) -> AsyncIterator[str]:
    """A process in another mount namespace, which sees other mounts than the OMA's own."""
    device = stack.device_root / disk.link
    process = await in_thread(_hold, ["unshare", "--mount", "sh", "-c", ELSEWHERE, "holder", str(device)])
    try:
        yield str(process.pid)
    finally:
        await in_thread(_end, process)


@asynccontextmanager
async def mounted(stack: Stack, disk: Disk) -> AsyncIterator[str]:
    """Its file system is mounted, only for reading, so that the content stays."""
    place = stack.directory / f"mount-{disk.link}"
    await in_thread(place.mkdir)
    await in_thread(_run, "mount", "-o", "ro", str(stack.device_root / disk.link), str(place))
    try:
        yield str(place)
    finally:
        await in_thread(_run, "umount", str(place))


@asynccontextmanager
async def loop_device(stack: Stack, disk: Disk) -> AsyncIterator[str]:
    """A loop device stands on it."""
    made = await in_thread(_run, "losetup", "--find", "--show", "--read-only", str(stack.device_root / disk.link))
    try:
        yield Path(made).name
    finally:
        await in_thread(_run, "losetup", "--detach", made)


async def make_file_system(stack: Stack, disk: Disk) -> None:
    """An empty one in place of the disk's content."""
    await in_thread(_run, "mke2fs", "-q", "-F", str(stack.device_root / disk.link))


def missing_right(*commands: str) -> str | None:
    """What this machine lacks to hold a block device by these commands."""
    if os.geteuid() != 0:
        return "root"
    missing = [name for name in commands if shutil.which(name) is None]
    return " and ".join(missing) or None


def _write_script(script: Path) -> None:
    script.parent.mkdir(exist_ok=True)
    script.write_text(INJECTION, encoding="utf-8")
    script.chmod(0o755)


def _hold(command: list[str]) -> subprocess.Popen[str]:
    """A process that said that it holds the device; it waits for the end of its input."""
    process = subprocess.Popen(
        command,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    if process.stdout is None or process.stdout.readline().strip() != READY:
        _end(process)
        raise RuntimeError(f"{command[0]} did not get hold of {command[-1]}")
    return process


def _end(process: subprocess.Popen[str]) -> None:
    """With its whole session: its children are no children of ours."""
    injection = Injection(process)
    for pid in {process.pid, *injection.list_tree()}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait(ENDING_S)
    wait_until(lambda: not injection.list_tree(), f"processes of the session {process.pid} did not end")


def _list_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _session_of(pid: int) -> int | None:
    """None: there is no such process, or it has ended and nobody has reaped it."""
    try:
        state, _, _, session = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()[:4]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(session) if state not in "ZX" else None


def _run(*command: str) -> str:
    """What it printed. Raises `RuntimeError` with its words where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment())
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()
