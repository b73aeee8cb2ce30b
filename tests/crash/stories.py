"""What may be going on when the daemon dies: a clean-up of each kind, what a person does to it, and how it may end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from oma.domain.actions import ActionKind, Upstream
from oma.domain.controls import Scope
from oma.domain.errors import OmaError
from oma.domain.events import Event, EventType
from oma.domain.jobs import CleanupRequest, Job
from oma.domain.resolving import Resolution
from oma.domain.states import JobState, Phase
from oma.domain.words import Words
from oma.domain.world import EPOCH_KEY
from oma.service.control import cancel_job
from oma.service.pausing import ControlRequest, pause, read_pauses
from oma.service.pausing import resume as lift
from oma.workflow.run import Figures
from ossea.simulator.model import FaultKind
from tests.crash.life import FIGURES, LEASE_S, Life
from tests.crash.settling import REASON, Settle, give_up, insist, say_truth, saying
from tests.fakes.faults import Weather
from tests.fakes.scenario import OMA, BrokenVm, Disk
from tests.fakes.stage import Stage
from tests.unit.workflow.evidence import injection

KEY: Final = "the caller's own key"
STOPPED: Final = "Stopped"
DONE: Final = frozenset({JobState.COMPLETED})
BACK: Final = frozenset({JobState.FAILED})

Meddle = Callable[[Life, Job], Awaitable[None]]
Prepare = Callable[[Stage, BrokenVm], None]


async def _do_nothing(_life: Life, _job: Job) -> None:
    return None


@dataclass(frozen=True)
class Story:
    """`prepare` sets the world, in its own process; `meddle` is what a person does in the life that is to die."""

    name: str
    ends: frozenset[JobState] = DONE
    vm: Callable[[], BrokenVm] = BrokenVm
    prepare: Prepare = lambda _stage, _vm: None
    asked: dict[str, Any] = field(default_factory=dict)
    meddle: Meddle = _do_nothing
    settle: Settle = say_truth
    before: Callable[[Life, BrokenVm], Awaitable[None]] | None = None
    mend: Prepare = lambda _stage, _vm: None
    """What somebody does in the world, at the latest while the daemon is down."""
    tolerated: str | None = None
    """Part of what the invariants say where somebody else, and not the daemon, has brought it about."""
    figures: Figures = FIGURES

    def request(self, vm: BrokenVm) -> CleanupRequest:
        return CleanupRequest(vm.name, **self.asked)


def _stopped() -> BrokenVm:
    return BrokenVm(test_vm_state=STOPPED)


def _one_disk() -> BrokenVm:
    return BrokenVm(disks=[Disk()], test_vm_state=STOPPED)


def _fails(command: str, *, times: int | None = 1, errorcode: int = 530, disk: int | None = None) -> Prepare:
    def prepare(stage: Stage, vm: BrokenVm) -> None:
        ids = {"revertSnapshot": vm.snapshot_id, "deleteSnapshot": vm.snapshot_id}.get(command, vm.volume_id)
        match = {} if disk is None else {"id": ids(disk)}
        stage.world.add_fault(FaultKind.JOB_FAIL, command, times=times, errorcode=errorcode, match=match)

    return prepare


def _slow_revert(stage: Stage, vm: BrokenVm) -> None:
    match = {"id": vm.snapshot_id(0)}
    stage.world.add_fault(FaultKind.JOB_STUCK, "revertSnapshot", delay_s=400.0, match=match)


def _all(*steps: Prepare) -> Prepare:
    def prepare(stage: Stage, vm: BrokenVm) -> None:
        for step in steps:
            step(stage, vm)

    return prepare


def _loses(calls: Callable[[Stage], list[str]], *names: str) -> Prepare:
    return lambda stage, _vm: calls(stage).extend(names)


def _at(kind: ActionKind, type_: EventType, act: Callable[[Life, Job], Coroutine[Any, Any, object]]) -> Meddle:
    """Once, as soon as the run has come so far."""

    async def meddle(life: Life, job: Job) -> None:
        begun: list[Event] = []

        def look(event: Event) -> None:
            if event.type is type_ and event.data.get("kind") == kind.value and not begun:
                begun.append(event)
                life.beside(asyncio.ensure_future(act(life, job)))

        life.stage.deps.bus.on_event(look)

    return meddle


async def _cancel(life: Life, job: Job) -> None:
    with suppress(OmaError):
        await cancel_job(life.stage.deps, job.id, "wrong VM", actor="eva")


async def _cancel_and_give_up(life: Life, job: Job) -> None:
    """While the revert's own job is still under way."""
    await _at(ActionKind.REVERT_SNAPSHOT, EventType.ACTION_SENT, _cancel)(life, job)

    def look(event: Event) -> None:
        if event.type is EventType.JOB_PARKED:
            life.beside(asyncio.ensure_future(give_up(life, job)))

    life.stage.deps.bus.on_event(look)


async def _replicate(life: Life, job: Job) -> None:
    """A replication begins between the call and the run's own analysis, which refuses then."""
    now = life.stage.clock.now().strftime("%Y-%m-%d %H:%M:%S.%f")
    await life.stage.sql(
        f"UPDATE replication_jobs SET status = 'running', completed_at = NULL, updated_at = '{now}' "
        f"WHERE vm_context_id = '{job.context_id}'"
    )


async def _claim_and_die(life: Life, _job: Job) -> None:
    """Another daemon, which is gone right after its claim."""
    await life.stage.deps.journal.claim_job("a daemon that died", LEASE_S)


async def _drain(life: Life, _job: Job) -> None:
    life.stage.deps.stopping.set()
    await life.worker.drain(30.0)
    life.stage.deps.stopping.clear()
    life.worker._draining = False


async def _cut_off(life: Life, _job: Job) -> None:
    """A stop that does not wait for the run's safe point."""
    await life.worker.drain(0.0)
    life.worker._draining = False


async def _renew(life: Life, _job: Job) -> None:
    await life.worker.renew()


EVERYTHING: Final = ControlRequest(Scope.ALL, reason="the array reboots", requested_by="eva")


async def _pause_and_lift(life: Life, _job: Job) -> None:
    await pause(life.stage.deps, EVERYTHING)
    running = life.running
    if running:
        await asyncio.wait(running)
    await lift_all(life)


async def lift_all(life: Life) -> None:
    await lift(life.stage.deps, EVERYTHING)
    await read_pauses(life.stage.deps)


def _hold(stage: Stage, vm: BrokenVm) -> None:
    stage.volumes.holders[vm.volume_id(0)] = [injection()]


def _held() -> BrokenVm:
    disks = [Disk(place=OMA, mode="oma"), Disk(place=OMA, mode="oma")]
    return BrokenVm(disks=disks, test_vm_state=None, steps=(), running_steps=("virtio-driver-injection",))


class _AfterAsking(asyncio.Event):
    """Comes a moment after somebody has asked how the operation stands."""

    def __init__(self, weather: Weather) -> None:
        super().__init__()
        self._weather = weather

    async def wait(self) -> Literal[True]:
        await self._weather.until_asked("wait_operation")
        await asyncio.sleep(0.1)
        return True


def _overdue(stage: Stage, vm: BrokenVm) -> None:
    stage.volumes.late[vm.volume_id(0)] = _AfterAsking(stage.volumes.weather)


def _lost_export(stage: Stage, vm: BrokenVm) -> None:
    stage.volumes.unexported = {vm.volume_id(0): Upstream("Volume Daemon", "nbd_reload_failed", "no space")}


def _epoch_ahead(stage: Stage, _vm: BrokenVm) -> None:
    words = {"resourceids": stage.world.oma_vm_id, "resourcetype": "UserVm", "tags[0].key": EPOCH_KEY}
    stage.world.ask("createTags", **words, **{"tags[0].value": f"{stage.deps.limits.installation}:99"})


async def _settle_by_cancel(life: Life, job: Job) -> None:
    try:
        await cancel_job(life.stage.deps, job.id, "the daemon is mended", actor="eva")
    except OmaError:
        await say_truth(life, job)


def _with_status(status: str) -> Callable[[Life, Job], Coroutine[Any, Any, object]]:
    async def write(life: Life, job: Job) -> None:
        await life.stage.sql(
            f"UPDATE vm_replication_contexts SET current_status = '{status}' WHERE context_id = '{job.context_id}'"
        )

    return write


async def _give_back_status(life: Life, job: Job) -> None:
    """Whoever took it has ended."""
    await _with_status("cleanup_required")(life, job)
    await say_truth(life, job)


async def _refused_before(life: Life, vm: BrokenVm) -> None:
    """A call that a guard refuses, which is audited; the watcher's turns; then the cause is gone."""
    with suppress(OmaError):
        await life.stage.submit(vm, words=Words(force=True, reason="hurry"))
    with suppress(OmaError):
        await life.stage.submit(vm)
    await life.watcher.run_once()
    await life.mend()
    await life.watcher.run_once()


def _destroyed(stage: Stage, vm: BrokenVm) -> None:
    stage.world.change_vm(vm.test_vm_id, state="Destroyed")


def _recovered(stage: Stage, vm: BrokenVm) -> None:
    stage.world.change_vm(vm.test_vm_id, state=STOPPED)


_EARLY: Final = {"phases": (Phase.ANALYZE, Phase.DETACH)}

STORIES: Final[dict[str, Story]] = {
    story.name: story
    for story in (
        Story("a clean-up of a running test VM"),
        Story(
            "a hung injection is ended",
            vm=_held,
            prepare=_hold,
            asked={"words": Words(end_holders=True, reason=REASON)},
        ),
        Story(
            "a volume that needs nothing is skipped",
            vm=lambda: BrokenVm(disks=[Disk(), Disk(place=OMA, dirty=False, snapshot=False, mode="oma")], steps=()),
        ),
        Story("only the first phases", vm=_stopped, asked=_EARLY),
        Story("a refused detach turns the run back", BACK, _stopped, _fails("detachVolume", errorcode=431, disk=0)),
        Story(
            "a volume that cannot be put back parks, and a cancel tries again",
            BACK,
            _stopped,
            _all(_fails("detachVolume", errorcode=431, disk=0), _fails("attachVolume", disk=1)),
            settle=_settle_by_cancel,
        ),
        Story(
            "refused by the run's own analysis",
            frozenset({JobState.FAILED, JobState.COMPLETED}),
            _one_disk,
            meddle=_replicate,
        ),
        Story(
            "cancelled while it is queued",
            frozenset({JobState.CANCELLED, JobState.COMPLETED}),
            meddle=_cancel,
        ),
        Story(
            "cancelled before the first revert",
            frozenset({JobState.CANCELLED, JobState.COMPLETED}),
            _stopped,
            meddle=_at(ActionKind.DETACH_VOLUME, EventType.ACTION_SENT, _cancel),
        ),
        Story(
            "cancelled after the first revert, then resumed",
            frozenset({JobState.CANCELLED, JobState.COMPLETED}),
            _stopped,
            meddle=_at(ActionKind.REVERT_SNAPSHOT, EventType.ACTION_SENT, _cancel),
        ),
        Story("a revert is made again after its window", vm=_one_disk, prepare=_fails("revertSnapshot", disk=0)),
        Story(
            "a revert that is not proven runs again at a person's word",
            vm=_one_disk,
            prepare=_fails("revertSnapshot", times=2, disk=0),
        ),
        Story(
            "a revert that is not proven is taken on trust",
            vm=_one_disk,
            prepare=_fails("revertSnapshot", times=2, disk=0),
            settle=saying(Resolution.APPLIED),
        ),
        Story(
            "a volume is to be copied whole",
            vm=_one_disk,
            prepare=_fails("revertSnapshot", times=2, disk=0),
            settle=saying(Resolution.RESYNC),
        ),
        Story(
            "a revert that takes too long is given up",
            vm=_one_disk,
            prepare=_slow_revert,
            meddle=_cancel_and_give_up,
            settle=give_up,
            figures=replace(FIGURES, cancel_patience_s=20.0),
        ),
        Story("a snapshot is left by force", vm=_one_disk, prepare=_fails("deleteSnapshot", times=None), settle=insist),
        Story(
            "a test VM is left by force",
            vm=_one_disk,
            prepare=_fails("destroyVirtualMachine", times=None),
            settle=insist,
        ),
        Story("a test VM is stopped by force", prepare=_fails("stopVirtualMachine", times=2), settle=insist),
        Story("an export is left by force", vm=_one_disk, prepare=_lost_export, settle=insist),
        Story(
            "an attach that failed runs again at a person's word", vm=_one_disk, prepare=_fails("attachVolume", disk=0)
        ),
        Story(
            "answers are lost",
            prepare=_all(
                _loses(lambda stage: stage.cloud.weather.lose_answers, "stopVirtualMachine", "revertSnapshot"),
                _loses(lambda stage: stage.cloud.weather.lose_answers, "deleteSnapshot", "destroyVirtualMachine"),
                _loses(lambda stage: stage.volumes.weather.lose_answers, "detachVolume", "attachVolume"),
            ),
        ),
        Story(
            "requests are lost",
            prepare=_all(
                _loses(lambda stage: stage.cloud.weather.lose_requests, "stopVirtualMachine", "revertSnapshot"),
                _loses(lambda stage: stage.cloud.weather.lose_requests, "deleteSnapshot", "destroyVirtualMachine"),
                _loses(lambda stage: stage.volumes.weather.lose_requests, "detachVolume", "attachVolume"),
            ),
        ),
        Story(
            "a detach that was lost is given up",
            # After a death fewer are left to be lost: then it arrives in the end.
            BACK | DONE,
            _stopped,
            _loses(lambda stage: stage.volumes.weather.lose_requests, *["detachVolume"] * 10),
        ),
        Story("an old copy of the database was restored", vm=_one_disk, prepare=_epoch_ahead),
        Story("a detach is overdue", BACK, _stopped, _overdue),
        Story(
            "paused in the middle, then lifted",
            vm=_one_disk,
            meddle=_at(ActionKind.REVERT_SNAPSHOT, EventType.ACTION_SENT, _pause_and_lift),
        ),
        Story(
            "the daemon drains in the middle",
            vm=_one_disk,
            meddle=_at(ActionKind.REVERT_SNAPSHOT, EventType.ACTION_SENT, _drain),
        ),
        Story(
            "the daemon is cut off in the middle",
            vm=_one_disk,
            meddle=_at(ActionKind.ATTACH_VOLUME, EventType.ACTION_STARTED, _cut_off),
        ),
        Story("taken over from a daemon that died right after its claim", vm=_one_disk, meddle=_claim_and_die),
        Story(
            "leases are renewed in the middle",
            meddle=_at(ActionKind.DETACH_VOLUME, EventType.ACTION_STARTED, _renew),
        ),
        Story(
            "somebody else takes the VM's status",
            frozenset({JobState.COMPLETED}),
            _one_disk,
            meddle=_at(ActionKind.ATTACH_VOLUME, EventType.ACTION_SENT, _with_status("discovered")),
            settle=_give_back_status,
            tolerated="parked at discovered",
        ),
        Story("refused at first, and found stuck", prepare=_destroyed, before=_refused_before, mend=_recovered),
    )
}
