"""One scan of this machine: all volumes at once, every process, mount namespace and block device. It blocks."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from volume_daemon.holders.blocks import Blocks, Covered, cover, find_swaps, is_claimed, read_blocks
from volume_daemon.holders.mounts import Mounts
from volume_daemon.holders.people import People
from volume_daemon.holders.places import Places, Scope, Target, TargetUnclear, Unread, find_target, list_names, look_at
from volume_daemon.holders.processes import Hits, Opened, Process, Wanted, find_process, list_pids
from volume_daemon.holders.report import Holder, HolderKind

ROUNDS: Final = 20
PREFIX: Final = "virtio-"
FIRST_PID_NAMESPACE: Final = 0xEFFFFFFC
"""`PROC_PID_INIT_INO` of linux/proc_ns.h: the inode of the machine's own process namespace."""
LOOP_MAJOR: Final = 7


@dataclass(slots=True)
class Progress:
    """Where a scan is, for whoever waits for one that hangs."""

    place: str = "nothing yet"


@dataclass(frozen=True, slots=True)
class Question:
    """Whose devices are looked for: those asked about, and all under `device_root` beside them."""

    asked: Mapping[str, Path]
    """Serial → link."""
    device_root: Path | None = None
    extra: Sequence[Target] = ()


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one scan saw, by serial."""

    targets: Mapping[str, Target]
    absent: frozenset[str]
    """Asked about, and not on this machine."""
    holders: Mapping[str, Sequence[Holder]]
    unread: tuple[str, ...]
    """Of the machine: it concerns every volume."""
    unclear: Mapping[str, tuple[str, ...]]
    """Of one volume."""
    passed_over: int = 0
    table: Mapping[int, Process] = field(default_factory=dict)
    processes: int = 0


def scan(question: Question, places: Places, scope: Scope, progress: Progress) -> Sighting:
    """Raises nothing of the system's: what cannot be read is in the answer."""
    return _Scan(question, places, scope, progress).run()


class _Scan:
    def __init__(self, question: Question, places: Places, scope: Scope, progress: Progress) -> None:
        self._question = question
        self._places = places
        self._scope = scope
        self._progress = progress
        self._unread = Unread()
        self._unclear: dict[str, Unread] = defaultdict(Unread)
        self._absent: set[str] = set()
        self._holders: dict[str, list[Holder]] = defaultdict(list)

    def run(self) -> Sighting:
        self._progress.place = "the devices"
        targets = self._find_targets()
        blocks = read_blocks(self._places, self._unread)
        covers = {serial: self._cover(target, blocks) for serial, target in targets.items()}
        for index, holder in find_swaps(self._places, list(covers.values()), self._unread):
            self._holders[list(covers)[index]].append(holder)
        table, hits = self._look_at_processes(_build_wanted(covers))
        self._progress.place = "the processes found"
        people = People(self._places.proc_root, table, hits, self._unread)
        for pid in sorted(hits):
            for serial, holder in people.describe(pid):
                self._holders[serial].append(holder)
        for serial in self._question.asked:
            if serial in targets:
                self._ask_kernel(targets[serial])
        return self._build(targets, table)

    def _build(self, targets: Mapping[str, Target], table: Mapping[int, Process]) -> Sighting:
        counts = self._scope == "everything"
        return Sighting(
            targets=targets,
            absent=frozenset(self._absent),
            holders={serial: tuple(found) for serial, found in self._holders.items()},
            unread=self._unread.shown() if counts else (),
            unclear={serial: unread.shown() for serial, unread in self._unclear.items() if unread.sentences},
            passed_over=0 if counts else len(self._unread.sentences),
            table=table,
            processes=len(table),
        )

    def _find_targets(self) -> dict[str, Target]:
        found = {target.serial: target for target in self._question.extra}
        links = _list_links(self._question.device_root, self._unread) | dict(self._question.asked)
        for serial, link in links.items():
            try:
                target = find_target(serial, link, self._places)
            except TargetUnclear as unclear:
                self._unclear[serial].sentences.append(str(unclear))
                continue
            if target is not None:
                found[serial] = target
            elif (problem := _root_problem(self._question.device_root)) is not None:
                self._unclear[serial].sentences.append(problem)
            else:
                self._absent.add(serial)
        return found

    def _cover(self, target: Target, blocks: Blocks) -> Covered:
        unread = self._unclear[target.serial]
        covered = cover(target, blocks, unread)
        self._holders[target.serial] += covered.holders
        if target.number is not None and os.major(target.number) != LOOP_MAJOR and not self._sees_machine():
            # A loop device is a stand-in for a disk, made by whoever runs here.
            unread.note("processes outside this container", "they are not shown here")
        return covered

    def _sees_machine(self) -> bool:
        if not self._places.is_machine:
            return True
        try:
            return look_at(f"{self._places.proc_root}/self/ns/pid").st_ino == FIRST_PID_NAMESPACE
        except OSError:
            return False

    def _look_at_processes(self, wanted: Wanted) -> tuple[dict[int, Process], dict[int, Hits]]:
        """In rounds, until a listing shows nobody new: what a process forked meanwhile may hold what it held."""
        opened = Opened(self._places.proc_root, wanted, self._unread)
        mounts = Mounts(self._places.proc_root, wanted, self._unread)
        own = os.getpid() if self._places.is_machine else None  # it opens devices for a look at their size only
        table: dict[int, Process] = {}
        hits: dict[int, Hits] = {}
        seen: set[int] = set()
        for _ in range(ROUNDS):
            try:
                fresh = [pid for pid in list_pids(self._places.proc_root) if pid not in seen]
            except OSError as error:
                self._unread.note(str(self._places.proc_root), error)
                return table, hits
            if not fresh:
                return table, hits
            seen.update(fresh)
            for pid in fresh:
                self._look_at(pid, opened, mounts, table, hits, own)
        self._unread.note("processes", "new ones kept appearing")
        return table, hits

    def _look_at(  # noqa: PLR0917
        self,
        pid: int,
        opened: Opened,
        mounts: Mounts,
        table: dict[int, Process],
        hits: dict[int, Hits],
        own: int | None,
    ) -> None:
        self._progress.place = f"process {pid}"
        try:
            process = find_process(self._places.proc_root, pid)
        except OSError as error:
            self._unread.note(f"process {pid}", error)
            return
        if process is None:
            return
        table[pid] = process
        if process.is_kernel_thread:
            return
        found = opened.look(process) if pid != own else None
        if found:
            hits[pid] = found
        if not process.is_dead:
            for serial, holder in mounts.look(process):
                self._holders[serial].append(holder)

    def _ask_kernel(self, target: Target) -> None:
        if target.number is None or self._places.dev_root is None or self._holders[target.serial]:
            return
        claimed = is_claimed(target.path, target.number)
        if claimed is None:
            self._unclear[target.serial].note(target.path, "the kernel could not be asked whether it is claimed")
        elif claimed:
            detail = "the kernel has it claimed, and no mount or device that can be seen explains why"
            self._holders[target.serial].append(Holder(HolderKind.KERNEL, "kernel", detail=detail))


def _list_links(device_root: Path | None, unread: Unread) -> dict[str, Path]:
    """Whole disks by their serial."""
    if device_root is None:
        return {}
    names: list[str] = []
    with unread.reading(str(device_root)):
        names = list_names(device_root)
    return {
        name.removeprefix(PREFIX): device_root / name
        for name in names
        if name.startswith(PREFIX) and "-part" not in name
    }


def _root_problem(device_root: Path | None) -> str | None:
    """Why a link that is not found there says nothing about the device; None where it does, or where none is given."""
    if device_root is None:
        return None
    try:
        list_names(device_root)
    except OSError as error:
        return f"{device_root} cannot be read ({error.strerror}), so that no device is known to be there or not"
    return None


def _build_wanted(covers: Mapping[str, Covered]) -> Wanted:
    wanted = Wanted()
    for serial, covered in covers.items():
        for number, through in covered.numbers.items():
            wanted.numbers.setdefault(number, []).append((serial, through))
        if covered.file is not None:
            wanted.files.setdefault(covered.file, []).append((serial, None))
    return wanted
