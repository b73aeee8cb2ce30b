"""The scan, its proof and its signals on this machine's own processes, mounts and block devices."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.parts import require_part
from tests.unit.volume_daemon.children import READY, child, hung_injection, id_of
from tests.unit.volume_daemon.proc_tree import ProcTree
from volume_daemon.holders.places import Places
from volume_daemon.holders.processes import find_process, read_table
from volume_daemon.holders.proof import prove
from volume_daemon.holders.report import HolderKind, ProcessId, Role
from volume_daemon.holders.scan import Progress, Question, Sighting, scan
from volume_daemon.server.signals import end_tree

PROC = Path("/proc")
MACHINE = Places.of(PROC, Path("/sys"))
SERIAL = "b3bb93101b594f6297e8"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOLD = f'exec 3<>"$1"; echo {READY}; read'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(b"")
    os.truncate(path, 32 << 20)
    return path


@pytest.fixture
def loop(file: Path) -> Iterator[Path]:
    require_part("root", os.geteuid() == 0)
    require_part("losetup", shutil.which("losetup") is not None)
    made = subprocess.run(["losetup", "--find", "--show", file], capture_output=True, text=True, check=False)
    require_part("loop devices", made.returncode == 0)
    device = Path(made.stdout.strip())
    yield device
    subprocess.run(["losetup", "--detach", device], check=True)


def look(device: Path) -> Sighting:
    """Whoever may not be read is passed over: some machines hide their first process even from root."""
    return scan(Question({SERIAL: device}), MACHINE, "readable", Progress())


def kinds(seen: Sighting) -> list[HolderKind]:
    return [one.kind for one in seen.holders.get(SERIAL, ())]


def found_pids(seen: Sighting) -> list[ProcessId | None]:
    return [one.process for one in seen.holders.get(SERIAL, ())]


def test_a_child_with_the_file_open_is_found_and_gone_when_it_ends(file: Path):
    with child("bash", "-c", HOLD, "bash", file) as holding:
        assert found_pids(look(file)) == [id_of(holding)]
    assert kinds(look(file)) == []


def test_a_child_with_the_block_device_open_is_found_by_another_node_too(loop: Path, tmp_path: Path):
    node = tmp_path / "node"
    os.mknod(node, 0o060600, loop.stat().st_rdev)
    with child("bash", "-c", HOLD, "bash", node) as holding:
        seen = look(loop)
        assert found_pids(seen) == [id_of(holding)]
        assert seen.holders[SERIAL][0].access == ("fd 3 read-write",)


def test_a_mapping_of_the_device_is_found_after_it_was_closed(loop: Path):
    # Not by Python's own mmap, which keeps a descriptor of the file beside the mapping.
    program = (
        "import ctypes, os, sys; f = os.open(sys.argv[1], os.O_RDONLY); libc = ctypes.CDLL(None);"
        " libc.mmap.restype = ctypes.c_void_p; assert libc.mmap(None, 4096, 1, 1, f, 0) not in (None, 2**64 - 1);"
        f" os.close(f); print('{READY}', flush=True); sys.stdin.read()"
    )
    with child(sys.executable, "-c", program, loop) as holding:
        seen = look(loop)
        assert found_pids(seen) == [id_of(holding)]
        assert seen.holders[SERIAL][0].access == ("mapped",)


def test_a_mount_in_another_namespace_and_a_loop_device_over_it(loop: Path, tmp_path: Path):
    require_part("mkfs.ext4", shutil.which("mkfs.ext4") is not None)
    subprocess.run(["mkfs.ext4", "-q", loop], check=True)
    over = subprocess.run(
        ["losetup", "--find", "--show", loop], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        assert kinds(look(loop)) == [HolderKind.LOOP]
        mount = f"mount {over} {tmp_path} && echo {READY} && read"
        with child("unshare", "--mount", "--propagation", "private", "bash", "-c", mount):
            seen = look(loop)
            assert kinds(seen) == [HolderKind.LOOP, HolderKind.MOUNT]
            mounted = seen.holders[SERIAL][1]
            assert (mounted.name, mounted.through) == (str(tmp_path), Path(over).name)
            assert mounted.namespace != Path("/proc/self/ns/mnt").stat().st_ino
    finally:
        subprocess.run(["losetup", "--detach", over], check=True)


def test_a_file_system_that_was_unmounted_lazily_still_holds(loop: Path, tmp_path: Path):
    require_part("mkfs.ext4", shutil.which("mkfs.ext4") is not None)
    subprocess.run(["mkfs.ext4", "-q", loop], check=True)
    (tmp_path / "mnt").mkdir()
    script = f"mount {loop} {tmp_path}/mnt && exec 5<{tmp_path}/mnt && umount -l {tmp_path}/mnt && echo {READY} && read"
    with child("unshare", "--mount", "--propagation", "private", "bash", "-c", script):
        assert kinds(look(loop)) == [HolderKind.KERNEL]
    assert kinds(look(loop)) == []


if Path("/sys/class/misc/device-mapper").exists():  # not every kernel has it; the prepared tree shows it everywhere

    def test_device_mapper_over_it(loop: Path):
        name = f"holders-{os.getpid()}"
        subprocess.run(["dmsetup", "create", name, "--table", f"0 1024 linear {loop} 0"], check=True)
        try:
            assert kinds(look(loop)) == [HolderKind.DEVICE_MAPPER]
        finally:
            subprocess.run(["dmsetup", "remove", name], check=True)


def test_an_nbd_server_is_named_with_its_client(file: Path, tmp_path: Path):
    program = tmp_path / "server.py"
    program.write_text(
        "import os, pathlib, socket, sys\n"
        "pathlib.Path('/proc/self/comm').write_text('nbd-server')\n"
        "device = os.open(sys.argv[1], os.O_RDWR)\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "client = socket.create_connection(server.getsockname())\n"
        "accepted = server.accept()\n"
        f"print('{READY}', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with child(sys.executable, program, file) as serving:
        process, *clients = look(file).holders[SERIAL]
        assert (process.process, process.role, process.endable) == (id_of(serving), Role.NBD_SERVER, False)
        # Both ends of the connection are this process's.
        assert {one.kind for one in clients} == {HolderKind.NBD_CLIENT}
        assert len({one.name for one in clients if one.name.startswith("127.0.0.1:")}) == 2


def test_the_scan_proves_itself_on_a_child_of_another_user():
    require_part("root", os.geteuid() == 0)
    found = prove(MACHINE, "everything", NOW)
    assert (found.ok, found.proven_at) == (True, NOW), found
    assert "another user" in found.detail


def test_a_tree_without_its_child_proves_nothing(tmp_path: Path):
    found = prove(ProcTree(tmp_path).prepare().places, "readable", NOW)
    assert not found.ok
    assert "did not find" in found.detail


def test_who_is_not_root_proves_only_what_it_may_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert not prove(MACHINE, "everything", NOW).ok
    assert "same user" in prove(MACHINE, "readable", NOW).detail


def test_a_tree_ends_after_term(tmp_path: Path, file: Path):
    with child(hung_injection(tmp_path), file) as holding:
        (process,) = {one.tree for one in look(file).holders[SERIAL]}
        assert process == id_of(holding)
        ended = asyncio.run(end_tree(id_of(holding), (), 30, 5))
        assert (len(ended.members), ended.remaining, ended.killed) == (2, (), False)
        assert holding.wait() == -signal.SIGTERM
    assert kinds(look(file)) == []


def test_what_ignores_term_is_killed_with_its_children(tmp_path: Path, file: Path):
    with child(hung_injection(tmp_path, ignores_term=True), file) as holding:
        ended = asyncio.run(end_tree(id_of(holding), (), 0.05, 30))
        assert (len(ended.members), ended.remaining, ended.killed) == (2, (), True)
        assert holding.wait() == -signal.SIGKILL
    assert kinds(look(file)) == []


def test_a_stopped_process_is_killed_without_being_woken(tmp_path: Path, file: Path):
    with child(hung_injection(tmp_path), file) as holding:
        for pid in [one.pid for one in read_table(PROC).values() if one.parent == holding.pid] + [holding.pid]:
            os.kill(pid, signal.SIGSTOP)
        ended = asyncio.run(end_tree(id_of(holding), (), 0.05, 30))
        assert (ended.remaining, ended.killed) == ((), True)


def test_another_start_time_is_another_process_and_stays_untouched(tmp_path: Path, file: Path):
    with child(hung_injection(tmp_path), file) as holding:
        seen = id_of(holding)
        earlier = ProcessId(seen.pid, seen.start_ticks - 1)
        ended = asyncio.run(end_tree(earlier, (earlier,), 0.05, 0.05))
        assert (ended.members, ended.remaining) == ((), ())
        assert holding.poll() is None
        assert find_process(PROC, seen.pid) is not None
