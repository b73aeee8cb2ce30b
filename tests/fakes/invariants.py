"""The invariants (`oma.demo.invariants`) asked of a stage: the fakes' log of calls, the rows, and the model's end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from sqlalchemy import Table

from oma.demo.invariants import (
    TABLES,
    Call,
    Ended,
    History,
    Rest,
    Violation,
    VmFacts,
    VolumeAtRest,
    VolumeFacts,
    build_journal,
    judge,
    judge_rest,
)
from oma.domain.jobs import Job
from oma.domain.world import MARK_KEY
from ossea.simulator.model.witness import list_ends
from tests.fakes.scenario import INJECTION, OMA, BrokenVm
from tests.fakes.world import FakeWorld


class Judged(Protocol):
    """What a stage has to show: a stage of fakes, or a scene of the simulation."""

    @property
    def world(self) -> FakeWorld: ...

    @property
    def vms(self) -> Mapping[str, BrokenVm]:
        """By context."""

    @property
    def volumes(self) -> Any:
        """`mappings` by volume, and `exported` by volume where that is known."""

    @property
    def deps(self) -> Any:
        """`revert_window_s`, as this world shortens it."""

    @property
    def replicated(self) -> Mapping[str, tuple[str, str]]:
        """Volume → what it has to hold, and its change id, since it was replicated again."""

    async def rows(self, table: Table) -> Sequence[Mapping[str, Any]]: ...


async def violations(stage: Judged, job: Job) -> list[str]:
    """Everything that the runs of this job's VM must never have done or left behind; empty is good."""
    history = await build_history(stage)
    return [str(one) for one in judge(only_of(history, job.context_id))]


async def all_violations(stage: Judged, **more: Any) -> list[Violation]:
    """The same for all VMs; `more`: what else is known of the history, by the names of `History`."""
    return judge(replace(await build_history(stage), **more))


async def rest_violations(stage: Judged, context_id: str, **more: Any) -> list[Violation]:
    """How the newest run of this VM was left, in the middle of whatever goes on; `more`: as in `all_violations`."""
    history = replace(await build_history(stage), **more)
    return judge_rest(replace(history, vms=[vm for vm in history.vms if vm.context_id == context_id]))


async def build_history(stage: Judged) -> History:
    world = stage.world
    world.advance()
    journal = build_journal({table: await stage.rows(table) for table in TABLES})
    ends = {job_id: Ended(at, succeeded) for job_id, (at, succeeded) in list_ends(world.model.world).items()}
    return History(
        oma_vm_id=world.oma_vm_id,
        vms=[build_facts(vm, stage.replicated) for vm in stage.vms.values()],
        calls=tuple(world.orders),
        ends=ends,
        journal=journal,
        rest=build_rest(stage),
        told=tuple(world.told),
        honours_ids=world.model.settings.custom_job_id,
        window_s=stage.deps.revert_window_s,
        known=frozenset(str(row["volume_id"]) for row in journal.volumes),
    )


def build_facts(vm: BrokenVm, replicated: Mapping[str, tuple[str, str]]) -> VmFacts:
    """What a volume needs and holds is known from its seeding, and from what was copied onto it since."""
    injected = INJECTION in (*vm.steps, *vm.running_steps)
    return VmFacts(
        context_id=vm.context_id,
        name=vm.name,
        volumes=tuple(
            VolumeFacts(
                volume_id=vm.volume_id(number),
                name=f"{vm.name}-disk-{number}",
                good=good,
                disk_id=f"disk-{2000 + number}",
                change_id=change_id,
                snapshot_ids=(vm.snapshot_id(number),) if disk.snapshot else (),
                needs_revert=None if again else disk.place != OMA or disk.mode != "oma" or injected,
                tracked_ids=(vm.snapshot_id(number),) if disk.snapshot else (),
            )
            for number, disk in enumerate(vm.disks)
            for again in (vm.volume_id(number) in replicated,)
            for good, change_id in (
                replicated.get(vm.volume_id(number), (vm.clean_content(number), f"change-{number}")),
            )
        ),
        test_vm_id=vm.test_vm_id,
        other_vm_ids=tuple(vm.other_vm_ids),
        test_vm_goes=vm.test_vm_state in {"Running", "Stopped"},
    )


def build_rest(stage: Judged) -> Rest:
    world, volumes = stage.world, stage.volumes
    mappings, exported = volumes.mappings, volumes.exported
    shown = set(world.device_ids_on(world.oma_vm_id))
    rows = world.model.world
    return Rest(
        volumes={
            volume.id: VolumeAtRest(
                vm_id=volume.vm_id,
                shown_on_oma=volume.id in shown,
                content=world.content[volume.id],
                mode=mapping.operation_mode if (mapping := mappings.get(volume.id)) is not None else None,
                exported=exported.get(volume.id),
            )
            for volume in rows.volumes.rows.values()
            if volume.removed is None
        },
        vm_states={vm.id: vm.state for vm in rows.vms.rows.values() if vm.removed is None},
        snapshot_ids=frozenset(row.id for row in rows.snapshots.rows.values() if row.removed is None),
        marks={tag.resource_id: tag.value for tag in rows.tags.rows.values() if tag.key == MARK_KEY},
    )


def only_of(history: History, context_id: str) -> History:
    """What is about one VM: everything but the calls that the journal gives to another one's run."""
    vms = [vm for vm in history.vms if vm.context_id == context_id]
    return replace(history, vms=vms, calls=[call for call in history.calls if _may_be_of(history, call, context_id)])


def _may_be_of(history: History, call: Call, context_id: str) -> bool:
    action = history.journal.find_action(call.request_id)
    return action is None or history.journal.jobs[action.job_id].context_id == context_id
