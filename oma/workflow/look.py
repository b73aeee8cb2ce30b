"""A fresh look at some volumes, the VMs around them and the OMA's own devices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from oma.domain.world import CloudVm, CloudVolume, DeviceScan
from oma.ports import Fault, UpstreamError
from oma.workflow.retry import build_asking_policy
from oma.workflow.run import Run, Stopped

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
CANCEL_LOOK_S = 15.0
"""How often a long wait asks whether a person wants the run to stop."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Look:
    """What CloudStack lists and what the OMA shows, from questions asked after this look began."""

    volumes: dict[str, CloudVolume]
    vms: dict[str, CloudVm]
    scan: DeviceScan

    @property
    def is_settled(self) -> bool:
        return all(volume.is_settled for volume in self.volumes.values())

    def shows_device(self, volume_id: str) -> bool:
        return self.scan.shows(volume_id)

    def is_free(self, volume_id: str) -> bool:
        """Detached everywhere: on no VM, nothing pending, and the OMA shows no device."""
        volume = self.volumes.get(volume_id)
        return volume is not None and volume.vm_id is None and volume.is_settled and not self.shows_device(volume_id)

    def is_home(self, volume_id: str, oma_vm_id: str) -> bool:
        """Attached to the OMA, nothing pending, and the OMA shows its device."""
        volume = self.volumes.get(volume_id)
        return volume is not None and volume.vm_id == oma_vm_id and volume.is_settled and self.shows_device(volume_id)

    def describe(self, volume_id: str) -> dict[str, Any]:
        """Both sides of one volume, as evidence."""
        volume = self.volumes.get(volume_id)
        return {
            "cloudstack": "not listed"
            if volume is None
            else {"state": volume.state, "vm_id": volume.vm_id, "job_id": volume.pending_job_id},
            "device_on_oma": self.shows_device(volume_id),
        }


async def look_at(run: Run, volume_ids: Sequence[str], vm_ids: Sequence[str] = ()) -> Look:
    """Asks all sides at once; raises `UpstreamError`."""
    volumes, vms, scan = await asyncio.gather(
        run.tools.cloud.list_volumes(list(volume_ids)),
        run.tools.cloud.list_vms([vm_id for vm_id in vm_ids if vm_id]),
        run.tools.volumes.scan_devices(),
    )
    return Look({volume.id: volume for volume in volumes}, {vm.id: vm for vm in vms}, scan)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look says about an action's effect. `in_transition`: the other side is still at it, so wait longer."""

    proven: bool
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)
    in_transition: bool = False


async def settle(run: Run, judge: Callable[[], Awaitable[Verdict]], *, patience_s: float) -> Verdict:
    """Looks until the effect shows, for `patience_s` of calm, or for `busy_wait_s` while something is in transition.

    An upstream that does not answer is asked again within that time; its silence is the last verdict if it lasts.
    """
    clock, figures = run.tools.clock, run.tools.figures
    began = calm_since = clock.monotonic()
    pause_s = FIRST_PAUSE_S
    silent: str | None = None
    while True:
        try:
            verdict = await judge()
        except UpstreamError as error:
            silent = error.upstream.system
            verdict = Verdict(proven=False, sentence=f"{silent} did not answer: {error.upstream.text}")
            patience_s = max(patience_s, figures.settle_s)
        else:
            silent = None
        now = clock.monotonic()
        if verdict.in_transition:
            calm_since = now
        over = now - began >= figures.busy_wait_s if verdict.in_transition else now - calm_since >= patience_s
        if silent is not None and (over or run.tools.stop.is_set()):
            await run.stop_if_away(silent)
        if verdict.proven or over:
            return verdict
        await until_stopped(run, clock.sleep(pause_s))
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


async def settled_look(run: Run, volume_ids: Sequence[str], vm_ids: Sequence[str] = ()) -> Look:
    """A look with no job pending on any of the volumes; waits out transitions for `busy_wait_s`.

    A volume that is in transition even then is left to the checks of whoever asked. Source of the need: a late detach
    can take off a newer attachment (CloudStack issue 14214).
    """
    look = await ask(run, lambda: look_at(run, volume_ids, vm_ids))

    async def judge() -> Verdict:
        nonlocal look
        look = await look_at(run, volume_ids, vm_ids)
        settled = look.is_settled
        return Verdict(proven=settled, sentence="", in_transition=not settled)

    if not look.is_settled:
        await settle(run, judge, patience_s=0)
    return look


async def ask(run: Run, question: Callable[[], Awaitable[T]]) -> T:
    """The answer to a question between two actions, asked again where nobody answers.

    Raises `UpstreamError` when that lasts, and `Stopped`.
    """

    async def put() -> T:
        # The policy awaits only what it knows for a coroutine function.
        return await question()

    policy = build_asking_policy(run.tools.clock, run.tools.figures.retries, run.tools.stop.is_set)
    answer: T = await unless_away(run, until_stopped(run, policy(put)))
    return answer


async def unless_away(run: Run, work: Awaitable[T]) -> T:
    """The work's answer; raises `Stopped` where it broke off because another system is away altogether."""
    try:
        return await work
    except UpstreamError as error:
        if error.fault is not Fault.REFUSED:
            await run.stop_if_away(error.upstream.system)
        raise


async def until_called_off(run: Run, work: Awaitable[T], *, patience_s: float = 0.0) -> T:
    """Waits like `until_stopped`, but raises `Cancelled` where a person wants the run to stop; after `patience_s`."""
    clock = run.tools.clock
    began = clock.monotonic()
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            pause = asyncio.ensure_future(clock.sleep(CANCEL_LOOK_S))
            try:
                await until_stopped(run, asyncio.wait({task, pause}, return_when=asyncio.FIRST_COMPLETED))
            finally:
                pause.cancel()
                await asyncio.gather(pause, return_exceptions=True)
            if not task.done() and clock.monotonic() - began >= patience_s:
                await run.heed_cancel()
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_stopped(run: Run, work: Awaitable[T]) -> T:
    """Waits for the work, or raises `Stopped` as soon as the daemon drains; what was sent stays journaled."""
    task = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(run.tools.stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Stopped
    finally:
        for one in (task, stopping):
            if not one.done():
                one.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)
