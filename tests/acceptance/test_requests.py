"""What callers may ask of the main job, and everything that they may ask wrongly, over real processes."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from database.tables import oma_jobs
from oma.demo.checks import content_faults, faults_of_a_cleaned_vm
from oma.demo.ledger import differences, last_call, list_changes, read_ledger
from oma.demo.operator import Answer, cleanup_path
from oma.demo.stack import Stack
from oma.demo.story import DiskStory, Place, SeededVm, VmStory
from oma.demo.world import World
from oma.domain.states import PHASES

pytestmark = pytest.mark.asyncio(loop_scope="session")

ENDS = {"job_completed", "job_parked", "job_failed"}
SLOW_S = 2.5


async def send(stack: Stack, path: str, body: bytes | None = None, **headers: str) -> Answer:
    """Bytes as they are, as a program with a fault would send them."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            URL(stack.operator.url + path, encoded=True),
            data=body,
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        ) as response,
    ):
        return Answer(response.status, dict(response.headers), json.loads(await response.text()))


async def follow_to_the_end(stack: Stack, job_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(60), aclosing(stack.operator.follow(job_id)) as stream:
        async for event in stream:
            events.append(event)
            if event["type"] in ENDS:
                break
    return events


async def slow_down_the_revert(stack: Stack, vm: SeededVm, seconds: float = SLOW_S) -> None:
    await stack.admin.add_fault("revertSnapshot", "job_stuck", match={"id": vm.disks[0].snapshot_id}, delay_s=seconds)


def is_problem(answer: Answer, status: int, code: str) -> bool:
    body = answer.body
    return (
        (answer.status, answer.code) == (status, code)
        and answer.headers["Content-Type"].startswith("application/problem+json")
        and body["status"] == status
        and body["type"].endswith(code)
        and body["success"] is False
        and body["error"] == f"Failed to cleanup failed execution: {body['detail']}"
        and bool(body["title"] and body["correlation_id"])
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def untouched_vm(world: World) -> SeededVm:
    """For requests that must not change it: one VM for all of them."""
    return await world.seed(VmStory("asked-wrongly", test_vm="Stopped"))


BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "broken JSON": (b'{"dry_run": tru', "body"),
    "not an object": (b'["dry_run"]', "body"),
    "not UTF-8": (b'{"context_id": "\xff"}', "body"),
    "a number that is none": (b'{"dry_run": NaN}', "body"),
    "a key twice": (b'{"dry_run": true, "dry_run": false}', "dry_run"),
    "a text for a flag": (b'{"dry_run": "yes"}', "dry_run"),
    "a number for an id": (b'{"context_id": 7}', "context_id"),
    "an empty id": (b'{"context_id": ""}', "context_id"),
    "a digest that is none": (b'{"expect_plan": "latest"}', "expect_plan"),
    "an unknown field": (b'{"dryrun": true}', "dryrun"),
    "an unknown phase": (b'{"phases": ["analyze-volume-state", "make-coffee"]}', "phases"),
    "phases as a text": (b'{"phases": "reset-vm-state"}', "phases"),
    "no phases": (b'{"phases": []}', "phases"),
    "phases with a gap": (b'{"phases": ["detach-attached-volumes", "reattach-all-volumes"]}', "phases"),
    "force where no run has failed": (b'{"force": true, "reason": "I know"}', "force"),
}


@pytest.mark.parametrize("kind", BAD_BODIES)
async def test_a_bad_body_is_named_and_nothing_happens(world: World, untouched_vm: SeededVm, kind: str) -> None:
    body, field = BAD_BODIES[kind]
    before, ledger = await last_call(world.stack), await read_ledger(world.stack, untouched_vm)

    answer = await send(world.stack, cleanup_path(untouched_vm.name), body, Content_Type="application/json")

    assert is_problem(answer, 422, "invalid_request"), answer.body
    assert answer.body["field"] == field
    assert await list_changes(world.stack, untouched_vm, before) == []
    assert differences(ledger, await read_ledger(world.stack, untouched_vm)) == []


@pytest.mark.parametrize("prefer", ["wait=soon", "wait=-1", "wait", "respond-asynch", "wait=1.5"])
async def test_a_bad_prefer_is_named_and_nothing_happens(world: World, untouched_vm: SeededVm, prefer: str) -> None:
    ledger = await read_ledger(world.stack, untouched_vm)

    answer = await world.stack.operator.clean_up(untouched_vm.name, headers={"Prefer": prefer})

    assert is_problem(answer, 422, "invalid_request"), answer.body
    assert answer.body["field"] == "Prefer"
    assert differences(ledger, await read_ledger(world.stack, untouched_vm)) == []


NAMES: dict[str, tuple[str, int, str]] = {
    "unknown": ("/api/v1/failover/no-such-vm/cleanup-failed", 404, "vm_not_found"),
    "empty": ("/api/v1/failover//cleanup-failed", 422, "invalid_request"),
    "10 kB": (f"/api/v1/failover/{'n' * 10_240}/cleanup-failed", 422, "invalid_request"),
    "10 kB of another script": (f"/api/v1/failover/{'%D1%81' * 1_700}/cleanup-failed", 422, "invalid_request"),
    "longer than a name may be": (f"/api/v1/failover/{'n' * 300}/cleanup-failed", 422, "invalid_request"),
    "with a NUL": ("/api/v1/failover/a%00b/cleanup-failed", 422, "invalid_request"),
}


@pytest.mark.parametrize("kind", NAMES)
async def test_a_bad_name_is_a_problem_document(stack: Stack, kind: str) -> None:
    path, status, code = NAMES[kind]

    answer = await send(stack, path)

    assert (answer.status, answer.code) == (status, code), answer.body
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.body["detail"]


async def test_a_near_name_is_named_and_nothing_happens(world: World, untouched_vm: SeededVm) -> None:
    ledger = await read_ledger(world.stack, untouched_vm)

    answer = await world.stack.operator.clean_up(f"{untouched_vm.name.upper()} ")

    assert is_problem(answer, 404, "vm_not_found"), answer.body
    assert answer.body["near_matches"] == [untouched_vm.name]
    assert differences(ledger, await read_ledger(world.stack, untouched_vm)) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Host": "evil.example"},
    ],
    ids=lambda headers: " ".join(f"{name} {value}" for name, value in headers.items()),
)
async def test_another_site_may_change_nothing(world: World, untouched_vm: SeededVm, headers: dict[str, str]) -> None:
    ledger = await read_ledger(world.stack, untouched_vm)

    answer = await send(world.stack, cleanup_path(untouched_vm.name), None, **headers)

    assert is_problem(answer, 403, "cross_site"), answer.body
    assert differences(ledger, await read_ledger(world.stack, untouched_vm)) == []


async def test_a_dry_run_shows_the_plan_and_changes_nothing(world: World, broken_vm: SeededVm) -> None:
    before, ledger = await last_call(world.stack), await read_ledger(world.stack, broken_vm)

    answer = await world.stack.operator.clean_up(broken_vm.name, {"dry_run": True})

    assert answer.status == 200
    assert "Dry run" in answer.body["message"]
    kinds = [action["kind"] for action in answer.body["plan"]["actions"]]
    assert kinds == [
        *["set_marker"] * 2,
        *["detach_volume"] * 2,
        *["revert_snapshot"] * 2,
        *["delete_snapshot"] * 2,
        *["attach_volume"] * 2,
        "destroy_vm",
        "reset_records",
        "clear_marker",
    ]
    assert answer.body["plan"]["observed"]
    assert answer.body["plan"]["risks"]
    assert answer.body["plan_digest"] == answer.body["plan"]["plan_digest"]
    assert await list_changes(world.stack, broken_vm, before) == []
    assert differences(ledger, await read_ledger(world.stack, broken_vm)) == []
    assert await content_faults(world, broken_vm, world.found) == []


async def test_the_expected_plan_is_done_and_a_stale_one_is_not(world: World, broken_vm: SeededVm) -> None:
    stack = world.stack
    old = (await stack.operator.clean_up(broken_vm.name, {"dry_run": True})).body["plan_digest"]
    await stack.admin.patch_vm(broken_vm.test_vm_id, state="Running")
    before, ledger = await last_call(stack), await read_ledger(stack, broken_vm)

    stale = await stack.operator.clean_up(broken_vm.name, {"expect_plan": old})

    assert is_problem(stale, 409, "plan_stale"), stale.body
    assert differences(ledger, await read_ledger(stack, broken_vm)) == []
    new = (await stack.operator.clean_up(broken_vm.name, {"dry_run": True})).body["plan_digest"]
    assert new != old
    evidence = stale.body["evidence"]
    assert (evidence["expected"], evidence["current"]) == (old, new)
    assert any("test VM's state" in change and "is Running" in change for change in evidence["changed"]), evidence
    done = await stack.operator.clean_up(broken_vm.name, {"expect_plan": new})
    assert done.word == "200 ready"
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


async def test_who_does_not_wait_gets_the_jobs_address(world: World, broken_vm: SeededVm) -> None:
    stack = world.stack
    before = await last_call(stack)

    answer = await stack.operator.clean_up(broken_vm.name, headers={"Prefer": "respond-async"})

    assert answer.status == 202
    job_id = answer.body["job_id"]
    assert answer.headers["Location"] == f"/api/v1/jobs/{job_id}"
    assert answer.headers["Preference-Applied"] == "respond-async"
    events = await follow_to_the_end(stack, job_id)
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})
    assert events[0]["type"] == "job_queued"
    assert events[-1]["type"] == "job_completed"
    job = await stack.operator.ask("GET", answer.headers["Location"])
    assert job.body["status"] == "completed"
    steps = await stack.operator.ask("GET", f"/api/v1/jobs/{job_id}/steps")
    assert [step["name"] for step in steps.body["items"]] == [phase.value for phase in PHASES]
    actions = await stack.operator.ask("GET", f"/api/v1/jobs/{job_id}/actions")
    # The answer does not wait until the marker is off again.
    waited_for = [action for action in actions.body["items"] if action["kind"] != "clear_marker"]
    assert {action["state"] for action in waited_for} == {"EXECUTED"}
    log = await stack.operator.ask("GET", f"/api/v1/jobs/{job_id}/log?limit=500")
    assert log.body["items"]
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


async def test_who_waits_a_second_gets_the_address_of_a_longer_run(world: World, broken_vm: SeededVm) -> None:
    stack = world.stack
    before = await last_call(stack)
    await slow_down_the_revert(stack, broken_vm)

    answer = await stack.operator.clean_up(broken_vm.name, headers={"Prefer": "wait=1"})

    assert answer.status == 202, answer.body
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert answer.body["status"] == "running"
    assert (await follow_to_the_end(stack, answer.body["job_id"]))[-1]["type"] == "job_completed"
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


async def test_a_second_call_while_one_runs_is_refused(world: World, broken_vm: SeededVm) -> None:
    stack = world.stack
    before = await last_call(stack)
    await slow_down_the_revert(stack, broken_vm)
    first = await stack.operator.clean_up(broken_vm.name, headers={"Prefer": "respond-async"})

    answers = await asyncio.gather(*(stack.operator.clean_up(broken_vm.name) for _ in range(5)))

    for answer in answers:
        assert is_problem(answer, 409, "cleanup_in_progress"), answer.body
        assert answer.body["job_id"] == first.body["job_id"]
    await follow_to_the_end(stack, first.body["job_id"])
    assert len((await read_ledger(stack, broken_vm)).of(oma_jobs)) == 1
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []
    again = await stack.operator.clean_up(broken_vm.name)
    assert is_problem(again, 409, "nothing_to_clean"), again.body


async def test_of_many_calls_at_once_one_runs(world: World, broken_vm: SeededVm) -> None:
    stack = world.stack
    before = await last_call(stack)
    await slow_down_the_revert(stack, broken_vm, 1.0)

    answers = await asyncio.gather(*(stack.operator.clean_up(broken_vm.name) for _ in range(8)))

    words = sorted(answer.word for answer in answers)
    assert words == ["200 ready", *["409 cleanup_in_progress"] * 7]
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


async def test_a_client_that_goes_away_stops_nothing(world: World, broken_vm: SeededVm) -> None:
    stack = world.stack
    before = await last_call(stack)
    await slow_down_the_revert(stack, broken_vm, 1.0)
    asking = asyncio.create_task(stack.operator.clean_up(broken_vm.name))
    jobs: list[dict[str, Any]] = []
    async with asyncio.timeout(30):
        while not jobs:
            found = await stack.operator.ask("GET", f"/api/v1/jobs?vm={broken_vm.name}")
            jobs = found.body["items"]
    asking.cancel()
    await asyncio.wait([asking])

    events = await follow_to_the_end(stack, jobs[0]["id"])

    assert events[-1]["type"] == "job_completed"
    assert await faults_of_a_cleaned_vm(world, broken_vm, after_call=before) == []


async def test_phases_may_be_run_one_after_the_other(world: World, vm_name: str) -> None:
    stack = world.stack
    vm = await world.seed(VmStory(vm_name, (DiskStory(Place.TEST_VM), DiskStory(Place.OMA)), test_vm="Stopped"))
    before = await last_call(stack)
    _, detach, snapshots, reattach, reset = (phase.value for phase in PHASES)

    first = await stack.operator.clean_up(vm.name, {"phases": [detach]})

    assert first.status == 200
    assert (first.body["success"], first.body["partial"]) == (True, True)
    assert first.body["message"] == f"Ran {detach} for {vm.name}; the VM is not cleaned up"
    assert (await read_ledger(stack, vm)).context["current_status"] == "cleanup_required"
    for phases in ([reattach], [reset], [reattach, reset]):
        refused = await stack.operator.clean_up(vm.name, {"phases": phases})
        assert is_problem(refused, 422, "invalid_request"), refused.body
        assert snapshots in refused.body["detail"]
    second = await stack.operator.clean_up(vm.name, {"phases": [snapshots]})
    assert (second.status, second.body["partial"]) == (200, True)
    assert await content_faults(world, vm, world.good) == []
    third = await stack.operator.clean_up(vm.name)
    assert third.word == "200 ready"
    assert "partial" not in third.body
    assert await faults_of_a_cleaned_vm(world, vm, after_call=before) == []
    commands = [call["command"] for call in await list_changes(stack, vm, before)]
    assert commands.count("revertSnapshot") == len(vm.disks)


async def test_a_failover_that_is_alive_is_left_alone(world: World, vm_name: str) -> None:
    vm = await world.seed(VmStory(vm_name, alive=True))
    before, ledger = await last_call(world.stack), await read_ledger(world.stack, vm)

    answer = await world.stack.operator.clean_up(vm.name)

    assert is_problem(answer, 409, "operation_in_progress"), answer.body
    assert await list_changes(world.stack, vm, before) == []
    assert differences(ledger, await read_ledger(world.stack, vm)) == []


async def test_the_list_says_who_needs_a_clean_up_and_why(world: World, broken_vm: SeededVm) -> None:
    stack = world.stack
    found = await stack.operator.ask("GET", f"/api/v1/vm-contexts?q={broken_vm.name}&needs_cleanup=true")
    (vm,) = found.body["items"]
    assert (vm["vm_name"], vm["cleanup_recommended"]) == (broken_vm.name, True)

    await stack.operator.clean_up(broken_vm.name)

    found = await stack.operator.ask("GET", f"/api/v1/vm-contexts?q={broken_vm.name}&needs_cleanup=true")
    assert found.body["items"] == []
    one = await stack.operator.ask("GET", f"/api/v1/vm-contexts/{broken_vm.name}")
    assert one.body["status"] == "ready_for_failover"
