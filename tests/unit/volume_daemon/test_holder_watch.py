"""Asking for holders: one scan for many, never an old one, never a guess, and the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unit.volume_daemon.builders import VOLUME_ID
from tests.unit.volume_daemon.proc_tree import ProcTree
from volume_daemon.holders.report import HolderState, Proof
from volume_daemon.holders.scan import Question, Sighting, scan
from volume_daemon.server.devices import DeviceWatch, serial_of
from volume_daemon.server.holders import HolderFigures, HolderWatch
from volume_daemon.server.refusals import Problem

PROVEN = Proof(True, "proven", datetime(2026, 1, 1, tzinfo=UTC))


class Scans:
    """Stands between the watch and the real scan: counts, and holds a scan back until it is let go."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()

    def __call__(self, question: Question, *rest: object) -> Sighting:
        self.questions.append(question)
        self.began.set()
        assert self.gate.wait(30)
        return scan(question, *rest)  # type: ignore[arg-type]  # passed on as they came


@pytest.fixture
def tree(tmp_path: Path) -> ProcTree:
    (tmp_path / "by-id").mkdir()
    (tmp_path / "disk").write_bytes(b"0")
    (tmp_path / "by-id" / f"virtio-{serial_of(VOLUME_ID)}").symlink_to(tmp_path / "disk")
    return ProcTree(tmp_path).prepare()


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Scans:
    counting = Scans()
    monkeypatch.setattr("volume_daemon.server.holders.scan", counting)
    return counting


Build = Callable[..., HolderWatch]


@pytest.fixture
async def build(tree: ProcTree, scans: Scans) -> AsyncIterator[Build]:
    times = iter(datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in range(60))
    devices = DeviceWatch(tree.path / "by-id", tree.path / "product_uuid", lambda: next(times))
    built: list[HolderWatch] = []

    def make(prover: Callable[..., Proof] = lambda *_: PROVEN, **figures: float) -> HolderWatch:
        roots = HolderFigures(proc_root=tree.proc, sys_root=tree.sys, **figures)  # type: ignore[arg-type]
        built.append(HolderWatch(devices, roots, lambda: next(times), prover))
        return built[-1]

    yield make
    scans.gate.set()
    for watch in built:
        await watch.stop()


async def began(scans: Scans) -> None:
    await asyncio.to_thread(scans.began.wait, 30)
    scans.began.clear()


async def test_nobody_and_somebody(build: Build, tree: ProcTree):
    watch = build()
    assert (await watch.report(VOLUME_ID)).state is HolderState.NONE
    tree.add_process(7, files={3: tree.path / "disk"})
    first, again = await watch.report(VOLUME_ID), await watch.report(VOLUME_ID)
    assert (first.state, first.holders[0].first_seen_at) == (HolderState.HELD, first.scanned_at)
    assert again.scanned_at > first.scanned_at
    assert again.holders == first.holders


async def test_who_asks_during_a_scan_shares_the_next_one(build: Build, scans: Scans):
    watch = build()
    scans.gate.clear()
    first = asyncio.create_task(watch.report(VOLUME_ID))
    await began(scans)
    later = [asyncio.create_task(watch.report(VOLUME_ID)) for _ in range(20)]
    done, _ = await asyncio.wait(later, timeout=0)
    assert not done
    scans.gate.set()
    reports = await asyncio.gather(*later)
    assert len(scans.questions) == 2
    assert {one.scanned_at for one in reports} == {reports[0].scanned_at}
    assert reports[0].scanned_at > (await first).scanned_at


async def test_a_caller_that_goes_away_does_not_take_the_scan_from_others(build: Build, scans: Scans):
    watch = build()
    scans.gate.clear()
    one, other = (asyncio.create_task(watch.report(VOLUME_ID)) for _ in range(2))
    await began(scans)
    one.cancel()
    scans.gate.set()
    assert (await other).state is HolderState.NONE
    assert len(scans.questions) == 1


async def test_a_scan_that_hangs_is_unknown_and_not_begun_again(build: Build, scans: Scans):
    watch = build(scan_timeout_s=0.05)
    scans.gate.clear()
    reports = [await watch.report(VOLUME_ID) for _ in range(2)]
    assert [one.state for one in reports] == [HolderState.UNKNOWN] * 2
    assert "hangs at" in reports[1].unread[0]
    assert len(scans.questions) == 1


async def test_after_the_hang_it_scans_again(build: Build, scans: Scans):
    watch = build(scan_timeout_s=0.05)
    scans.gate.clear()
    assert (await watch.report(VOLUME_ID)).state is HolderState.UNKNOWN
    scans.gate.set()
    while (report := await watch.report(VOLUME_ID)).state is HolderState.UNKNOWN:
        await asyncio.to_thread(lambda: None)
    assert report.state is HolderState.NONE


async def test_without_proof_nobody_found_is_unknown(build: Build):
    proofs = [Proof(False, "hidden"), Proof(False, "hidden"), PROVEN]
    watch = build(lambda *_: proofs.pop(0))
    await watch.start()
    report = await watch.report(VOLUME_ID)
    assert (report.state, report.proof.detail) == (HolderState.UNKNOWN, "hidden")
    # It is tried again with the next question, and not after that.
    assert [(await watch.report(VOLUME_ID)).state for _ in range(2)] == [HolderState.NONE] * 2


async def test_something_unread_is_unknown_whoever_was_found(build: Build, tree: ProcTree):
    tree.add_process(7, files={3: tree.path / "disk"})
    tree.add_process(8)
    tree.make_unreadable(tree.proc / "8" / "fd")
    report = await build().report(VOLUME_ID)
    assert (report.state, len(report.holders), len(report.unread)) == (HolderState.UNKNOWN, 1, 1)


async def test_a_device_that_is_not_there_is_no_answer(build: Build):
    with pytest.raises(Problem) as absent:
        await build().report(VOLUME_ID.replace("b3", "c4"))
    assert absent.value.code == "device_not_found"


async def test_a_report_survives_the_way_to_the_client(build: Build, tree: ProcTree):
    tree.add_process(6, command=["virt-v2v-in-place"], files={3: tree.path / "disk"})
    report = await build().report(VOLUME_ID)
    assert type(report).parse(report.as_json()) == report
    assert report.holders[0].endable
