"""How long the scan for holders takes, and whether the event loop goes on: 2,000 processes on a prepared tree."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from benchmarks.table import Row, median
from tests.unit.volume_daemon.proc_tree import ProcTree
from volume_daemon.holders.report import HolderReport, Proof
from volume_daemon.server.devices import DeviceWatch
from volume_daemon.server.holders import HolderFigures, HolderWatch

PROCESSES = 2000
KERNEL_THREADS = 300
"""Among them, as an appliance has them."""
VOLUMES = 100
FILES = 12
MAPPED = 30
ASKERS = 100
SCAN_LIMIT_S = 0.25
LAG_LIMIT_S = 0.05
TICK_S = 0.001
PROVEN = Proof(ok=True, detail="the daemon proves itself once, at its start")


async def measure(rounds: int) -> Sequence[Row]:
    """One volume's report, the same for many askers at once, and the longest time that the loop stood still."""
    with tempfile.TemporaryDirectory() as folder:
        tree, volume_ids = await asyncio.to_thread(prepare, Path(folder))
        devices = DeviceWatch(tree.path / "by-id", tree.path / "product_uuid", now)
        watch = HolderWatch(devices, HolderFigures(proc_root=tree.proc, sys_root=tree.sys), now, lambda *_: PROVEN)
        await watch.start()
        one = [await _timed(watch, volume_ids[:1]) for _ in range(rounds)]
        many = [await _timed(watch, volume_ids[:ASKERS]) for _ in range(rounds)]
        await watch.stop()
    wall_s, shared_s = (median([wall for wall, _ in runs]) for runs in (one, many))
    lag_s = max(lag for _, lag in one + many)
    return (
        Row(
            f"{PROCESSES} processes, one asker",
            wall_s,
            SCAN_LIMIT_S,
            1.0,
            "bound = the limit",
        ),
        Row(f"{PROCESSES} processes, {ASKERS} askers", shared_s, note="one scan for all"),
        Row("the event loop stood still", lag_s, LAG_LIMIT_S, 1.0, "longest of all rounds; bound = the limit"),
    )


async def _timed(watch: HolderWatch, volume_ids: Sequence[str]) -> tuple[float, float]:
    """(wall, longest lag), in seconds. All of the tree is readable, and one process holds the first volume."""
    ticking = asyncio.create_task(_longest_lag())
    await asyncio.sleep(0)
    began = time.perf_counter()
    reports = await asyncio.gather(*(watch.report(volume_id) for volume_id in volume_ids))
    wall_s = time.perf_counter() - began
    ticking.cancel()
    _check(reports)
    return wall_s, await ticking


def _check(reports: Sequence[HolderReport]) -> None:
    first = reports[0]
    if first.unread or len(first.holders) != 1:
        raise RuntimeError(f"the prepared tree was read wrongly: {first}")


async def _longest_lag() -> float:
    longest_s, last = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.perf_counter()
            longest_s, last = max(longest_s, now_s - last - TICK_S), now_s
    except asyncio.CancelledError:
        return longest_s


def prepare(path: Path) -> tuple[ProcTree, list[str]]:
    """Processes with open files and mapped libraries, every volume a file with its link."""
    tree = ProcTree(path).prepare()
    (path / "by-id").mkdir()
    for number in range(20):
        tree.add_disk(f"vd{number}", f"252:{16 * number}", partitions=[f"vd{number}1"])
    volume_ids = [str(UUID(int=number << 64)) for number in range(1, VOLUMES + 1)]
    for volume_id in volume_ids:
        (path / volume_id).write_bytes(b"")
        (path / "by-id" / f"virtio-{volume_id.replace('-', '')[:20]}").symlink_to(path / volume_id)
    opened = [path / f"opened-{number}" for number in range(FILES)]
    for file in opened:
        file.write_bytes(b"")
    maps = "".join(
        f"7f{number:04x}000000-7f{number:04x}{part}00000 r-xp 00000000 00:1f {1000 + number}".ljust(73)
        + f"/usr/lib/lib{number}.so\n"
        for number in range(MAPPED)
        for part in range(1, 5)
    )
    for pid in range(1, PROCESSES + 1):
        is_kernel = pid <= KERNEL_THREADS
        files = {} if is_kernel else dict(enumerate(opened))
        tree.add_process(pid, maps="" if is_kernel else maps, files=files, kernel_thread=is_kernel, namespace=pid % 7)
    (tree.proc / str(PROCESSES) / "fd" / "99").symlink_to(path / volume_ids[0])
    return tree, volume_ids


def now() -> datetime:
    return datetime.now(UTC)
