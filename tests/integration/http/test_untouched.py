"""What is refused, only looked at, or makes no sense: the contracted code, and nothing written but its audit entry."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from appliance.web import LARGEST_BODY, serve_site
from database.tables import metadata, oma_audit
from oma.domain.spoken import LONGEST_REASON
from oma.http.app import build_app
from oma.http.site import Site
from ossea.simulator.model import FaultKind
from tests.fakes.scenario import BrokenVm
from tests.fakes.stage import Stage, open_stage

WHY = "agreed with the DR lead"
OTHER = "33333333-3333-4333-8333-333333333333"
NEVER = "0" * 64
AUDITS = ("oma_audit", "oma_sequences")

Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Daemon:
    """The API over the real store and a simulated world."""

    stage: Stage
    url: str
    client: aiohttp.ClientSession

    async def clean(self, name: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
        address = URL(f"{self.url}/api/v1/failover/{quote(name, safe='')}/cleanup-failed", encoded=True)
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        sent = {"Prefer": "wait=0", "Content-Type": "application/json", **headers}
        async with self.client.post(address, data=data, headers=sent) as response:
            return response.status, await response.json(content_type=None)

    async def everything(self) -> Rows:
        return {name: await self.stage.rows(table) for name, table in metadata.tables.items()}


@asynccontextmanager
async def served() -> AsyncIterator[Daemon]:
    async with open_stage() as stage, aiohttp.ClientSession() as client:
        runner, url = await serve_site(build_app(Site(stage.deps)), "127.0.0.1", 0, shutdown_timeout_s=1)
        try:
            yield Daemon(stage, url, client)
        finally:
            await runner.cleanup()


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    async with served() as opened:
        yield opened


def changed(before: Rows, after: Rows) -> set[str]:
    return {name for name, rows in after.items() if rows != before[name]}


def verdict_is_told(status: int, answer: dict[str, Any]) -> None:
    assert answer["replica"] in ("ready", "resync_required", "unknown"), answer
    assert answer["next"], answer
    if status >= 400:
        assert answer["success"] is False
        assert answer["error"].startswith("Failed to cleanup failed execution: ")
        assert answer["vm_name"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"dry_run": True}, 200, None),
        ({"dry_run": True, "expect_plan": NEVER}, 409, "plan_stale"),
        ({"expect_plan": NEVER}, 409, "plan_stale"),
        ({"force": True, "reason": WHY}, 422, "invalid_request"),
        ({"force": True, "destination_vm_id": OTHER, "reason": WHY}, 422, "invalid_request"),
        ({"snapshots": {OTHER: OTHER}, "reason": WHY}, 422, "invalid_request"),
        ({"resume": True}, 422, "invalid_request"),
        ({"resume": True, "force": True, "reason": WHY}, 422, "invalid_request"),
        ({"phases": ["reset-vm-state"]}, 422, "invalid_request"),
    ],
)
async def test_a_refusal_and_a_dry_run_write_their_audit_entry_alone(
    daemon: Daemon, body: dict[str, Any], status: int, code: str | None
) -> None:
    vm = await daemon.stage.add()
    before = await daemon.everything()

    found, answer = await daemon.clean(vm.name, body)

    assert (found, answer.get("code")) == (status, code)
    verdict_is_told(found, answer)
    after = await daemon.everything()
    assert changed(before, after) == set(AUDITS)
    assert len(after[oma_audit.name]) == 1
    assert daemon.stage.world.orders == []


async def test_a_snapshot_that_this_account_does_not_see_is_refused(daemon: Daemon) -> None:
    vm = await daemon.stage.add()
    before = await daemon.everything()
    found, answer = await daemon.clean(vm.name, {"snapshots": {vm.volume_id(0): OTHER}, "reason": WHY})
    assert (found, answer["code"]) in ((409, "snapshot_missing"), (409, "snapshot_mismatch"))
    assert OTHER in answer["detail"]
    assert answer["replica"] == "unknown"
    assert changed(before, await daemon.everything()) == set(AUDITS)


async def test_an_open_issue_and_a_running_job_refuse_and_write_nothing_else(daemon: Daemon) -> None:
    vm = await daemon.stage.add()
    daemon.stage.world.add_fault(FaultKind.JOB_FAIL, "deleteSnapshot", times=None)
    status, answer = await daemon.clean(vm.name)
    verdict_is_told(status, answer)
    running = await daemon.everything()
    status, answer = await daemon.clean(vm.name)
    assert (status, answer["code"]) == (409, "cleanup_in_progress")
    verdict_is_told(status, answer)
    assert changed(running, await daemon.everything()) == set(AUDITS)
    await daemon.stage.work()

    parked = await daemon.everything()
    for body in (None, {"dry_run": True}, {"resume": True}, {"force": True, "reason": WHY}):
        status, answer = await daemon.clean(vm.name, body)
        assert (status, answer["code"]) == (409, "needs_resolution")
        verdict_is_told(status, answer)
    assert changed(parked, await daemon.everything()) == set(AUDITS)


async def test_a_resume_that_is_retried_after_the_run_parked_again_gets_that_answer(daemon: Daemon) -> None:
    vm = await daemon.stage.add()
    daemon.stage.world.add_fault(FaultKind.JOB_FAIL, "deleteSnapshot", times=None)
    daemon.stage.world.add_fault(FaultKind.JOB_FAIL, "destroyVirtualMachine", times=None)
    daemon.stage.volumes.hidden_devices.add(vm.volume_id(1))
    _, begun = await daemon.clean(vm.name, None, **{"Idempotency-Key": "run-1"})
    await daemon.stage.work()
    body = {"resume": True, "force": True, "reason": WHY}
    status, _ = await daemon.clean(vm.name, body, **{"Idempotency-Key": "resume-1"})
    assert status == 202
    await daemon.stage.work()
    before = await daemon.everything()

    status, answer = await daemon.clean(vm.name, body, **{"Idempotency-Key": "resume-1"})
    assert (status, answer["code"], answer["job_id"]) == (500, "cleanup_failed", begun["job_id"])
    assert "device" in answer["detail"]
    verdict_is_told(status, answer)
    assert changed(before, await daemon.everything()) == set()

    for key, said in (("resume-1", {**body, "reason": "another"}), ("run-1", body)):
        status, answer = await daemon.clean(vm.name, said, **{"Idempotency-Key": key})
        assert (status, answer["code"]) == (422, "idempotency_key_reused")
    path = f"{daemon.url}/api/v1/jobs/{begun['job_id']}/resume"
    async with daemon.client.post(path, json={}, headers={"Idempotency-Key": "run-1"}) as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (422, "idempotency_key_reused")
    assert changed(before, await daemon.everything()) == set()


ABSURD: tuple[bytes, ...] = (
    b"true",
    b"false",
    b"0",
    b"-1",
    b"1e400",
    b"7.5",
    b'""',
    b'"   "',
    b'"yes"',
    rb'"\u0000"',
    rb'"\u001b[31m"',
    rb'"\ud83d"',
    rb'"\ud83d\ude00"',
    rb'"\u202e"',
    '"\u0130\u212a\uff10"'.encode(),
    b'"' + b"x" * 100_000 + b'"',
    b"[]",
    b'["force"]',
    b"[[]]",
    b"{}",
    b'{"": ""}',
    rb'{"\u0000": "\u0000"}',
    b'{"a": {"b": [1]}}',
    b"[" + b"0," * 5_000 + b"0]",
)
FIELDS = (
    "dry_run",
    "phases",
    "context_id",
    "expect_plan",
    "force",
    "end_test",
    "end_holders",
    "destination_vm_id",
    "snapshots",
    "resume",
    "reason",
)
BESIDE = (b"", b', "force": true, "reason": "why"', b', "resume": true', b', "dry_run": true')


@pytest.mark.parametrize("field", FIELDS)
async def test_no_value_of_any_field_is_answered_by_anything_but_a_contracted_code(daemon: Daemon, field: str) -> None:
    vm = await daemon.stage.add(BrokenVm(status="failed_over_test"))
    contracted = {200, 404, 409, 413, 422}
    before = await daemon.everything()
    for value in ABSURD:
        for beside in BESIDE:
            if f'"{field}"'.encode() in beside or (value == b"false" and beside == b""):
                continue
            raw = b'{"' + field.encode() + b'": ' + value + beside + b"}"
            status, answer = await daemon.clean(vm.name, raw)
            assert status in contracted, (raw[:200], status, answer)
            assert answer.get("code") not in ("internal_error", "plan_stale"), (raw[:200], answer)
            verdict_is_told(status, answer)
    assert changed(before, await daemon.everything()) <= set(AUDITS)
    assert daemon.stage.world.orders == []


@pytest.mark.parametrize(
    "body",
    [
        {"expect_plan": NEVER + "\n"},
        {"expect_plan": NEVER.replace("0", "\u0660")},
        {"expect_plan": "A" * 64},
        {"force": True, "reason": "x" * (LONGEST_REASON + 1)},
        {"force": True, "reason": "\u3164"},
        {"snapshots": {OTHER + "\n": OTHER}, "reason": WHY},
    ],
)
async def test_what_nearly_fits_is_invalid(daemon: Daemon, body: dict[str, Any]) -> None:
    vm = await daemon.stage.add()
    status, answer = await daemon.clean(vm.name, body)
    assert (status, answer["code"]) == (422, "invalid_request")
    assert await daemon.stage.rows(oma_audit) == []


@pytest.mark.parametrize(
    "name", ["\u202epgtest1", "pgtest1 ", "PGTEST1", "\x01", "x" * 300, "-x", "a/b", "' OR 1=1 --"]
)
async def test_no_name_is_answered_by_a_fault(daemon: Daemon, name: str) -> None:
    await daemon.stage.add()
    for body in ({}, {"dry_run": True}, {"resume": True}, {"force": True, "reason": WHY}):
        status, answer = await daemon.clean(name, body)
        assert (status, answer["code"]) in ((404, "vm_not_found"), (422, "invalid_request"))
        verdict_is_told(status, answer)
    assert daemon.stage.world.orders == []
    assert await daemon.stage.rows(oma_audit) == []


@pytest.mark.parametrize(
    ("method", "data", "kind", "status"),
    [
        ("POST", b"{" + b" " * (LARGEST_BODY + 1) + b"}", "application/json", 413),
        ("POST", b"dry_run=true", "text/plain", 415),
        ("GET", b"", "application/json", 405),
        ("POST", b'{"reason": "\xff"}', "application/json", 422),
    ],
)
async def test_what_the_server_itself_refuses_says_what_is_next(
    daemon: Daemon, method: str, data: bytes, kind: str, status: int
) -> None:
    address = f"{daemon.url}/api/v1/failover/pgtest1/cleanup-failed"
    async with daemon.client.request(
        method, address, data=io.BytesIO(data), headers={"Content-Type": kind}
    ) as response:
        answer = await response.json(content_type=None)
    assert response.status == status
    if method == "POST":
        verdict_is_told(status, answer)
