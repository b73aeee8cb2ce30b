"""A person's words that don't fit: the contracted code, the field by name, and nothing touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from oma.demo.checks import content_faults
from oma.demo.ledger import differences, last_call, list_changes, read_ledger
from oma.demo.operator import Answer
from oma.demo.story import CREATION, INJECTION, POWER_OFF, SNAPSHOT, DiskStory, SeededVm, VmStory
from oma.demo.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

REASON = "the owner agreed by telephone"
Body = Callable[[SeededVm], dict[str, Any]]

BAD_WORDS: dict[str, tuple[Body, str]] = {
    "no reason": (lambda _: {"end_test": True}, "reason"),
    "a blank reason": (lambda _: {"end_test": True, "reason": " \t "}, "reason"),
    "a reason of 100 kB": (lambda _: {"end_holders": True, "reason": "r" * 100_000}, "reason"),
    "a reason for nothing": (lambda _: {"reason": REASON}, "reason"),
    "words that contradict each other": (
        lambda _: {"end_test": True, "end_holders": True, "reason": REASON},
        "end_test",
    ),
    "resume beside a plan": (lambda _: {"resume": True, "dry_run": True}, "dry_run"),
    "force where no run has failed": (lambda _: {"force": True, "reason": REASON}, "force"),
    "a destination without force": (lambda vm: {"destination_vm_id": vm.test_vm_id}, "destination_vm_id"),
    "a destination of a test failover": (
        lambda vm: {"force": True, "destination_vm_id": vm.test_vm_id, "reason": REASON},
        "destination_vm_id",
    ),
    "a snapshot for another VM's volume": (
        lambda vm: {"snapshots": {str(uuid4()): vm.disks[0].snapshot_id}, "reason": REASON},
        "snapshots",
    ),
}


async def ask_in_vain(world: World, vm: SeededVm, body: dict[str, Any]) -> Answer:
    """Neither rows nor cloud nor content may change."""
    stack = world.stack
    before, ledger = await last_call(stack), await read_ledger(stack, vm)
    answer = await stack.operator.clean_up(vm.name, body)
    assert await list_changes(stack, vm, before) == []
    assert differences(ledger, await read_ledger(stack, vm)) == []
    assert await content_faults(world, vm, world.found) == []
    return answer


@pytest.mark.parametrize("kind", BAD_WORDS)
async def test_words_that_do_not_fit_are_named_and_nothing_happens(
    world: World, broken_vm: SeededVm, kind: str
) -> None:
    body, field = BAD_WORDS[kind]

    answer = await ask_in_vain(world, broken_vm, body(broken_vm))

    assert answer.word == "422 invalid_request", answer.body
    assert answer.body["field"] == field


async def test_the_vm_of_another_failover_is_never_emptied(world: World, vm_name: str) -> None:
    story = VmStory(
        vm_name,
        (DiskStory(),),
        job_type="live",
        context_status="failed_over_live",
        steps=(POWER_OFF, SNAPSHOT, INJECTION, CREATION, ("volume-attachment", "failed")),
        joblog_status="failed",
        test_vm="Stopped",
        was_started=False,
    )
    vm, other = await world.seed(story), await world.seed(VmStory(f"{vm_name}-other", test_vm="Stopped"))

    answer = await ask_in_vain(world, vm, {"force": True, "destination_vm_id": other.test_vm_id, "reason": REASON})

    assert answer.word == "422 invalid_request", answer.body
    assert answer.body["field"] == "destination_vm_id"
    assert other.test_vm_id in answer.body["detail"]


async def test_a_digest_that_never_was_is_a_stale_plan(world: World, broken_vm: SeededVm) -> None:
    answer = await ask_in_vain(world, broken_vm, {"expect_plan": "0" * 64})

    assert answer.word == "409 plan_stale", answer.body


async def test_a_snapshot_of_another_account_is_no_snapshot(world: World, vm_name: str) -> None:
    vm = await world.seed(VmStory(vm_name, (DiskStory(snapshots=()),), test_vm="Stopped"))
    volume_id, snapshot_id = vm.disks[0].volume_id, str(uuid4())
    theirs = {"id": snapshot_id, "volume_id": volume_id, "name": "multi-test-failover-theirs", "account": "somebody"}
    await world.stack.admin.seed(snapshots=[theirs])

    answer = await ask_in_vain(world, vm, {"snapshots": {volume_id: snapshot_id}, "reason": REASON})

    assert answer.word == "409 snapshot_missing", answer.body
    assert snapshot_id in str(answer.body["refusals"])
