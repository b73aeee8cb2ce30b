"""The words that only a person may say, as options of `oma cleanup`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from oma.cli.runs import Order
from oma.domain.spoken import read_words
from tests.unit.cli.conftest import Oma
from tests.unit.cli.server import serve_script

VOLUME = "11111111-1111-4111-8111-111111111111"
SNAPSHOT = "22222222-2222-4222-8222-222222222222"
UNREACHABLE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--force"], "needs a reason"),
        (["--end-test", "--reason", " "], "blank"),
        (["--force", "--end-holders", "--reason", "why"], "can't be said together"),
        (["--end-test", "--force", "--reason", "why"], "can't be said together"),
        (["--reason", "why"], "needs a word"),
        (["--destination-vm-id", VOLUME, "--reason", "why"], "only with force"),
        (["--force", "--reason", "why", "--destination-vm-id", "i-2-7-VM"], "an id of CloudStack"),
        (["--snapshot", VOLUME, "--reason", "why"], "VOLUME=SNAPSHOT"),
        (["--snapshot", f"{VOLUME}=newest", "--reason", "why"], "an id of CloudStack"),
        (["--snapshot", f"{VOLUME}={SNAPSHOT}"], "needs a reason"),
        (
            ["--snapshot", f"{VOLUME}={SNAPSHOT}", "--snapshot", f"{VOLUME}={VOLUME}", "--reason", "why"],
            "names a volume twice",
        ),
        (["--resume", "--dry-run"], "goes on with the plan"),
        (["--resume", "--phases", "reset-vm-state"], "goes on with the plan"),
        (["second", "--force", "--reason", "why"], "one VM"),
        (["second", "--resume"], "one VM"),
    ],
)
def test_what_does_not_fit_is_a_usage_error_before_any_call(oma_at: Oma, arguments: list[str], words: str) -> None:
    printed = oma_at(UNREACHABLE, "cleanup", "pgtest1", *arguments)
    assert printed.code == 2
    assert words in " ".join(printed.err.split())
    assert printed.out == ""


class Asked:
    """A daemon that keeps what it was asked, and says that the run goes on."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, Any]] = []

    async def accept(self, request: web.Request) -> web.Response:
        self.bodies.append((request.path, await request.json()))
        return web.json_response({"job_id": "job-1", "vm_name": "pgtest1", "message": "It goes on."}, status=202)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def daemon_url(asked: Asked) -> Iterator[str]:
    with serve_script(
        ("POST", "/api/v1/failover/pgtest1/cleanup-failed", asked.accept),
        ("POST", "/api/v1/jobs/job-1/resume", asked.accept),
    ) as url:
        yield url


def test_the_words_reach_the_daemon(oma_at: Oma, daemon_url: str, asked: Asked) -> None:
    arguments = ["--snapshot", f"{VOLUME}={SNAPSHOT}", "--end-holders", "--reason", "hung since midnight"]
    assert oma_at(daemon_url, "cleanup", "pgtest1", "--no-wait", *arguments).code == 0
    assert asked.bodies[0][1] == {
        "end_holders": True,
        "snapshots": {VOLUME: SNAPSHOT},
        "reason": "hung since midnight",
    }


def test_a_parked_run_is_resumed_by_its_vm_or_its_job(oma_at: Oma, daemon_url: str, asked: Asked) -> None:
    force = ["--force", "--reason", "the backup holds it"]
    for arguments in (
        ["cleanup", "pgtest1", "--resume", *force],
        ["jobs", "resume", "job-1", *force],
        ["jobs", "resume", "job-1"],
    ):
        printed = oma_at(daemon_url, *arguments, "--no-wait")
        assert printed.code == 0
        assert "oma jobs follow job-1" in printed.out
    said = {"force": True, "reason": "the backup holds it"}
    assert asked.bodies == [
        ("/api/v1/failover/pgtest1/cleanup-failed", {**said, "resume": True}),
        ("/api/v1/jobs/job-1/resume", said),
        ("/api/v1/jobs/job-1/resume", {}),
    ]


@pytest.mark.parametrize("arguments", [["--force"], ["--force", "--reason", "\u200b"]])
def test_a_resume_by_force_needs_a_reason(oma_at: Oma, arguments: list[str]) -> None:
    printed = oma_at(UNREACHABLE, "jobs", "resume", "job-1", *arguments)
    assert printed.code == 2
    assert "reason" in printed.err


@pytest.mark.parametrize(("state", "code"), [("completed", 0), ("parked", 5)])
def test_resuming_is_followed_to_its_end(oma_at: Oma, asked: Asked, state: str, code: int) -> None:
    async def events(_request: web.Request) -> web.Response:
        event = 'id: 1\nevent: job_started\ndata: {"sentence": "It goes on."}\n\n'
        return web.Response(text=f"{event}id: 2\nevent: job_{state}\ndata: {{}}\n\n", content_type="text/event-stream")

    async def job(_request: web.Request) -> web.Response:
        told = {"replica": "ready", "next": "Look at the leaks."}
        kept = {"result": {"message": "Done.", **told}} if state == "completed" else {"error": told}
        return web.json_response({"id": "job-1", "vm_name": "pgtest1", "status": state, **kept})

    with serve_script(
        ("POST", "/api/v1/jobs/job-1/resume", asked.accept),
        ("GET", "/api/v1/jobs/job-1/events", events),
        ("GET", "/api/v1/jobs/job-1", job),
    ) as url:
        printed = oma_at(url, "jobs", "resume", "job-1")
    assert printed.code == code
    assert "It goes on." in printed.err
    assert "Look at the leaks." in printed.out + printed.err


def test_resuming_what_nobody_knows(oma: Oma) -> None:
    assert oma("jobs", "resume", "nobody").code == 3


def test_the_body_holds_what_was_said_and_no_more() -> None:
    said: dict[str, Any] = {"end_test": True, "snapshots": {VOLUME: SNAPSHOT}, "reason": "why"}
    assert Order(words=read_words(said)).body() == said
    assert Order().body() == {}
