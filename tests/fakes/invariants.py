"""The invariants of section 9 of the safety rules, judged from the fake's log of orders and the journal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from database.tables import failover_jobs, oma_issues, oma_jobs, oma_leaks, ossea_volumes, vm_replication_contexts
from oma.domain.actions import Action, ActionKind
from oma.domain.jobs import Job
from oma.domain.states import ActionState, JobState
from tests.fakes.scenario import BrokenVm
from tests.fakes.world import FakeWorld, Order

if TYPE_CHECKING:
    from tests.fakes.stage import Stage

NEVER_AGAIN = frozenset({"revertSnapshot", "detachVolume"})
"""Commands that a released action must not repeat."""
UNCERTAIN = frozenset({ActionState.STARTED, ActionState.EXECUTION_FAILED})


async def violations(stage: Stage, job: Job) -> list[str]:
    """Everything that a run must never have done, and what it must not leave behind; empty is good."""
    vm = stage.vms[job.context_id]
    actions = await stage.deps.jobs.list_actions(job.id)
    journaled = {
        replace(row, attempt=attempt).request_id: attempt
        for one in await _all_jobs(stage)
        for row in await stage.deps.jobs.list_actions(one)
        for attempt in range(1, row.attempt + 1)
    }
    orders = [order for order in stage.world.orders if _concerns(order, vm)]
    found = [
        *_about_reverts(orders, stage.world),
        *_about_snapshots(orders, vm, job),
        *_about_vms(orders, vm, job, stage.world, await _known_volumes(stage)),
        *_about_ids(orders, journaled),
        *(await _at_rest(stage, job, vm, actions)),
    ]
    return [f"{job.vm_name}: {one}" for one in found]


async def _all_jobs(stage: Stage) -> list[str]:
    return [str(row["id"]) for row in await stage.rows(oma_jobs)]


def _concerns(order: Order, vm: BrokenVm) -> bool:
    return order.volume_id in vm.volume_ids or order.snapshot_id in vm.snapshot_ids or order.vm_id == vm.test_vm_id


async def _known_volumes(stage: Stage) -> set[str]:
    return {str(row["volume_id"]) for row in await stage.rows(ossea_volumes)}


def _about_reverts(orders: Sequence[Order], world: FakeWorld) -> Iterator[str]:
    attached_since: dict[str, bool] = {}
    for order in orders:
        volume_id = order.volume_id or ""
        if order.command == "attachVolume" and order.accepted and volume_id in attached_since:
            attached_since[volume_id] = True
        if order.command != "revertSnapshot":
            continue
        if order.holder is not None:
            yield f"{volume_id} was reverted while CloudStack showed it on {order.holder}"
        if order.device_on is not None:
            yield f"{volume_id} was reverted while {order.device_on} still showed its device"
        if attached_since.get(volume_id):
            yield f"{volume_id} was reverted again after it had been attached"
        attached_since.setdefault(volume_id, False)


def _about_snapshots(orders: Sequence[Order], vm: BrokenVm, job: Job) -> Iterator[str]:
    reverted: set[str] = set()
    own = {one.request_id for one in orders if one.command == "revertSnapshot"}
    planned = {one.target.snapshot_id for one in job.plan.actions if one.kind is ActionKind.REVERT_SNAPSHOT}
    for order in orders:
        if order.snapshot_id is not None and order.snapshot_id not in vm.snapshot_ids:
            yield f"the foreign snapshot {order.snapshot_id} was touched by {order.command}"
        if order.command == "revertSnapshot" and order.accepted:
            reverted.add(order.snapshot_id or "")
        if order.command == "deleteSnapshot":
            unproven = own.intersection(order.reverts_open)
            if unproven:
                yield f"snapshot {order.snapshot_id} was deleted before the reverts {unproven} were proven"
            if planned - reverted:
                yield f"snapshot {order.snapshot_id} was deleted before {planned - reverted} were reverted to"


def _about_vms(orders: Sequence[Order], vm: BrokenVm, job: Job, world: FakeWorld, known: set[str]) -> Iterator[str]:
    allowed = {vm.test_vm_id, world.oma_vm_id, None}
    for order in orders:
        if order.vm_id not in allowed:
            yield f"{order.command} touched the foreign VM {order.vm_id}"
        if order.command == "attachVolume" and order.vm_id != world.oma_vm_id:
            yield f"{order.volume_id} was attached to {order.vm_id}"
        if order.command in {"stopVirtualMachine", "destroyVirtualMachine"} and order.vm_id != vm.test_vm_id:
            yield f"{order.command} was sent to {order.vm_id}"
        if order.command == "destroyVirtualMachine" and known.intersection(order.held_volume_ids):
            yield f"{order.vm_id} was destroyed while it held {order.held_volume_ids}"
        if order.params.get("expunge"):
            yield f"{order.command} was sent with {dict(order.params)}"
        if order.params.get("forced") and not (
            order.command == "stopVirtualMachine" and _may_force(orders, order, job)
        ):
            yield f"{order.command} was sent with {dict(order.params)} without a person's word, or before an unforced one"


def _may_force(orders: Sequence[Order], forced: Order, job: Job) -> bool:
    unforced = (one for one in orders if one.number < forced.number and one.command == forced.command)
    return job.request.words.force and any(not one.params.get("forced") for one in unforced)


def _about_ids(orders: Sequence[Order], journaled: dict[str, int]) -> Iterator[str]:
    for order in orders:
        if order.request_id not in journaled:
            yield f"{order.command} was sent as {order.request_id}, which no journal knows"
    again = {request_id for request_id, attempt in journaled.items() if attempt > 1}
    done = Counter(
        (one.command, one.snapshot_id or one.volume_id or one.vm_id)
        for one in orders
        if one.accepted and (one.request_id not in again or one.command in NEVER_AGAIN)
    )
    yield from (f"{what} was done {times} times" for what, times in done.items() if times > 1)


async def _at_rest(stage: Stage, job: Job, vm: BrokenVm, actions: Sequence[Action]) -> list[str]:
    (context,) = await stage.rows(vm_replication_contexts, context_id=vm.context_id)
    status = context["current_status"]
    if job.state is JobState.COMPLETED and not (job.result or {}).get("partial"):
        return [*_not_home(stage, vm), *(await _left_over(stage, vm)), *(await _not_reset(stage, vm, status))]
    found: list[str] = []
    if job.state is JobState.COMPLETED and status != "cleanup_required":
        found.append(f"a partial run left {status}")
    if job.state is JobState.PARKED:
        issues = await stage.rows(oma_issues, job_id=job.id, state="open")
        named = {row["action_id"] for row in issues}
        found += [f"no open issue names the uncertain {one.kind} {one.id}" for one in actions if _is_open(one, named)]
        if not issues:
            found.append("parked without an open issue")
        if status != "cleanup_required":
            found.append(f"parked at {status}")
    if job.state is JobState.FAILED:
        if any(one.state is not ActionState.SKIPPED for one in actions):
            found.append("failed although it had acted")
        if status != job.plan.former_status:
            found.append(f"refused, but the status is {status}, not {job.plan.former_status} again")
    return found


def _is_open(action: Action, named: set[str | None]) -> bool:
    return action.state in UNCERTAIN and action.id not in named


def _not_home(stage: Stage, vm: BrokenVm) -> Iterator[str]:
    world = stage.world
    shown = world.device_ids_on(world.oma_vm_id)
    for number, volume_id in enumerate(vm.volume_ids):
        if world.holder_of(volume_id) != world.oma_vm_id:
            yield f"completed, but {volume_id} is on {world.holder_of(volume_id)}"
        if volume_id not in shown:
            yield f"completed, but the OMA shows no device for {volume_id}"
        if world.content[volume_id] != vm.clean_content(number):
            yield f"completed, but {volume_id} holds {world.content[volume_id]!r}"
        mapping = stage.volumes.mappings.get(volume_id)
        if mapping is None or mapping.operation_mode != "oma":
            yield f"completed, but {volume_id} is mapped as {mapping}"


async def _left_over(stage: Stage, vm: BrokenVm) -> list[str]:
    """What is still there and no leak names."""
    leaks = [row for row in await stage.rows(oma_leaks, context_id=vm.context_id) if row["state"] == "open"]
    kept = {row["target"].get("snapshot_id") for row in leaks if row["kind"] == "snapshot_kept"}
    vm_kept = any(row["kind"] == "test_vm_kept" for row in leaks)
    found = [
        f"completed, but snapshot {snapshot_id} is still there"
        for snapshot_id in vm.snapshot_ids
        if stage.world.snapshot_is_listed(snapshot_id) and snapshot_id not in kept
    ]
    if (
        vm.test_vm_state in {"Running", "Stopped"}
        and stage.world.vm_state(vm.test_vm_id) != "Destroyed"
        and not vm_kept
    ):
        found.append(f"completed, but the test VM is {stage.world.vm_state(vm.test_vm_id)}")
    return found


async def _not_reset(stage: Stage, vm: BrokenVm, status: str) -> list[str]:
    found = [] if status == "ready_for_failover" else [f"completed, but the status is {status}"]
    found += [
        f"completed, but the failover {row['job_id']} is {row['status']}"
        for row in await stage.rows(failover_jobs, vm_context_id=vm.context_id)
        if row["status"] not in {"failed", "completed"}
    ]
    found += [
        f"completed, but {row['volume_id']} still tracks {row['snapshot_id']}"
        for row in await stage.rows(ossea_volumes, vm_context_id=vm.context_id)
        if row["snapshot_id"] or row["snapshot_status"] != "none"
    ]
    return found
