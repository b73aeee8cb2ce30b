"""Who holds a device on the OMA, as a run treats it: what may be ended, how it is planned, what a person does instead.

Source of the rules: section 3 of the safety rules. Only an injection of this failover is ever ended, and only where a
person says so.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from oma.domain.actions import ActionKind, PlannedAction, Target
from oma.domain.evidence import Evidence
from oma.domain.holders import INJECTION, NBD_CLIENT, NBD_SERVER, DeviceHolder, DeviceHolders, ProcessId
from oma.domain.plan import VolumePlan
from oma.domain.states import Phase, VolumePlace
from oma.domain.world import Unanswered

INJECTION_STEP: Final = "virtio-driver-injection"
NO_ROUTE: Final = "not_found"
"""The code of a Volume Daemon that knows no such route."""
SHOWN: Final = 3
"""Holders that a sentence names; the evidence names all."""


def may_be_ended(holder: DeviceHolder) -> bool:
    """A process of a driver injection that the Volume Daemon would end; never an NBD server or one that is unknown."""
    return holder.endable and holder.role == INJECTION and holder.process is not None and holder.tree is not None


def name_holders(holders: Sequence[DeviceHolder]) -> str:
    """The first few of them, in words."""
    more = len(holders) - SHOWN
    named = ", ".join(one.sentence for one in holders[:SHOWN])
    return f"{named} and {more} more" if more > 0 else named


def unread_words(answer: DeviceHolders | Unanswered | None) -> str:
    """Why it can't be told who holds a device."""
    if answer is None:
        return "its device came or went while it was looked at"
    if isinstance(answer, DeviceHolders):
        return f"the scan could not see everything: {'; '.join(answer.unread) or 'it does not say what'}"
    if answer.code == NO_ROUTE:
        return "this Volume Daemon is too old to tell (it has no route for it)"
    return f"{answer.asked} did not say {answer.question}: {answer.reason}"


def how_to_see(answer: DeviceHolders | Unanswered | None, volume_id: str) -> str:
    """What a person does so that it can be told who holds a device."""
    if answer is None:
        return "Ask again. Nothing was touched."
    if isinstance(answer, Unanswered) and answer.code == NO_ROUTE:
        return "Install the Volume Daemon that came with this program (see oma doctor), then ask again."
    return (
        "See what the Volume Daemon lacks (oma doctor; systemctl status volume-daemon) and let it run as root with its "
        f"own unit, then ask again: curl http://127.0.0.1:8090/api/v1/volumes/{volume_id}/holders"
    )


def how_to_let_go(holder: DeviceHolder) -> str:
    """What a person does so that it lets go of the device."""
    return _ADVICE.get(_kind(holder), _look)(holder)


def plan_ends(evidence: Evidence, volumes: Sequence[VolumePlan]) -> Iterator[PlannedAction]:
    """One action per device and process tree, where a person said `end_holders`; before the devices are detached."""
    if not evidence.words.end_holders:
        return
    for volume in volumes:
        holders = evidence.get_facts(volume.volume_id).holders
        leaves_the_oma = volume.place is VolumePlace.ON_OMA and (volume.needs_revert or volume.awaits_copy)
        if not leaves_the_oma or not isinstance(holders, DeviceHolders):
            continue
        for root, members in _trees(holders).items():
            yield PlannedAction(
                Phase.DETACH,
                ActionKind.END_HOLDER,
                Target(volume_id=volume.volume_id, volume_name=volume.name, processes=_processes(root, members)),
                f"End the driver injection (process tree {root.pid}) that holds {volume.name}: "
                f"{', '.join(one.who for one in members)}.",
            )


def end_risks(evidence: Evidence, actions: Sequence[PlannedAction]) -> Iterator[str]:
    """One sentence for each injection that will be ended, with the word that passed it."""
    for action in actions:
        if action.kind is ActionKind.END_HOLDER:
            yield (
                f"The driver injection (process tree {action.target.get_root().pid}) that holds "
                f"{action.target.volume_name} will be ended, passed by end_holders: {evidence.words.reason}."
            )


def dead_injections(evidence: Evidence) -> Iterator[str]:
    """Injection steps that never reported their end, where complete scans show that nothing of them holds a device."""
    answers = [facts.holders for facts in evidence.volumes if facts.on_oma is True]
    told = all(isinstance(one, DeviceHolders) and one.complete for one in answers)
    held = any(isinstance(one, DeviceHolders) and one.others for one in answers)
    if held or not told:
        return
    for job_id in unended_injections(evidence):
        yield (
            f"The driver injection of failover {job_id} never reported its end; no process holds a device of this VM, "
            "so it is dead."
        )


def unended_injections(evidence: Evidence) -> Iterator[str]:
    """Failovers that are open and whose injection step still says that it runs."""
    for failover in evidence.records.failovers:
        log = evidence.records.joblog_of(failover)
        if failover.is_open and log is not None and INJECTION_STEP in log.running_step_names:
            yield failover.job_id


def _trees(holders: DeviceHolders) -> dict[ProcessId, list[DeviceHolder]]:
    trees: dict[ProcessId, list[DeviceHolder]] = {}
    for holder in holders.holders:
        if may_be_ended(holder) and holder.tree is not None:
            trees.setdefault(holder.tree, []).append(holder)
    return dict(sorted(trees.items(), key=lambda pair: (pair[0].pid, pair[0].start_ticks)))


def _processes(root: ProcessId, members: Sequence[DeviceHolder]) -> tuple[ProcessId, ...]:
    seen = {one.process for one in members if one.process is not None and one.process != root}
    return (root, *sorted(seen, key=lambda one: (one.pid, one.start_ticks)))


def _kind(holder: DeviceHolder) -> str:
    return holder.role or holder.kind if holder.kind == "process" else holder.kind


def _look(holder: DeviceHolder) -> str:
    return f"find out what {holder.words} {holder.name} is and close it"


def _mount(holder: DeviceHolder) -> str:
    point = shlex.quote(holder.name)
    if holder.namespace is None:
        return f"umount {point}"
    return (
        f"umount {point} (mount namespace {holder.namespace}; from another one: nsenter -m -t PID umount {point}, with "
        f"a PID of: lsns {holder.namespace})"
    )


def _process(holder: DeviceHolder) -> str:
    pid = holder.process.pid if holder.process else holder.name
    why = f"; {holder.why_not}" if holder.why_not else ""
    return f"let process {pid} end or end it yourself (ps -fp {pid}){why}"


_ADVICE: Final[dict[str, Callable[[DeviceHolder], str]]] = {
    "mount": _mount,
    "loop": lambda holder: f"losetup -d /dev/{holder.name.removeprefix('/dev/')}",
    "device_mapper": lambda holder: f"dmsetup remove /dev/{holder.name.removeprefix('/dev/')} (LVM: vgchange -an VG)",
    "md": lambda holder: f"mdadm --stop /dev/{holder.name.removeprefix('/dev/')}",
    "swap": lambda holder: f"swapoff {shlex.quote(holder.name)}",
    "filesystem": lambda holder: f"unmount the file system {holder.name} that has it open",
    "kernel": lambda _: "find the file system that was unmounted lazily, or restart the OMA",
    NBD_CLIENT: lambda holder: f"let the replication of {holder.name} end, or stop it",
    NBD_SERVER: lambda holder: f"end the export that {holder.who} serves; an NBD server is never ended here",
    INJECTION: _process,
    "unknown": _process,
}
