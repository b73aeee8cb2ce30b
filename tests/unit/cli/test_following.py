"""What happens when streams break, answers are lost, or the daemon goes away."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web

from oma.cli.client import ApiProblem, Client, Unreachable, in_path
from oma.cli.follow import Pace, follow_job
from oma.cli.runs import Order, Update, run_all
from oma.cli.stream import parse_events
from oma.domain.jobs import Job
from oma.domain.states import JobState
from oma.http.schemas import job_detail
from oma.service.queries import JobView
from tests.unit.cli.server import serve_script
from tests.unit.gui import samples


def document(job: Job) -> dict[str, Any]:
    return job_detail(JobView(job, (), (), ()))


class Waits:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.at = 0.0
        self.pauses: list[float] = []

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.at += seconds

    @property
    def pace(self) -> Pace:
        return Pace(monotonic=lambda: self.at, pause=self.pause, patience_s=60)


class Script:
    """A daemon whose streams are cut as told; one list of events per connection, None for a refused one."""

    def __init__(self, *connections: list[tuple[int, str, str]] | None, states: tuple[JobState, ...]) -> None:
        self.connections = list(connections)
        self.states = list(states)
        self.last_ids: list[str | None] = []

    async def events(self, request: web.Request) -> web.StreamResponse:
        self.last_ids.append(request.headers.get("Last-Event-ID"))
        events = self.connections.pop(0)
        if events is None:
            return web.json_response({"code": "shutting_down", "detail": "Stopping."}, status=503)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"retry: 2000\n\n: still here\n\n")
        for seq, kind, sentence in events:
            data = json.dumps({"seq": seq, "sentence": sentence})
            await response.write(f"id: {seq}\nevent: {kind}\ndata: {data}\n\n".encode())
        return response

    async def job(self, request: web.Request) -> web.Response:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        job = samples.completed_job() if state is JobState.COMPLETED else samples.job(state=state)
        return web.json_response(document(job))

    def routes(self):
        return (("GET", "/api/v1/jobs/{id}/events", self.events), ("GET", "/api/v1/jobs/{id}", self.job))


def test_a_cut_stream_goes_on_behind_the_last_event():
    script = Script(
        [(1, "job_started", "one"), (2, "noted", "two")],
        None,
        [(3, "noted", "three"), (7, "job_completed", "four")],
        states=(JobState.RUNNING, JobState.COMPLETED),
    )
    heard: list[str] = []
    notes: list[str] = []
    waits = Waits()
    with serve_script(*script.routes()) as url:
        view = follow_job(Client(url), "job-1", lambda event: heard.append(event.sentence), notes.append, waits.pace)
    assert heard == ["one", "two", "three", "four"]
    assert script.last_ids == ["0", "2", "2"]
    assert view.state == "completed"
    assert notes[0].startswith("Stopping.")
    assert notes[1] == "The connection is back."


def test_a_job_parked_and_resumed_while_away_is_followed_further():
    script = Script(
        [(1, "job_parked", "parked")],
        [(2, "job_completed", "done")],
        states=(JobState.RUNNING, JobState.COMPLETED),
    )
    with serve_script(*script.routes()) as url:
        view = follow_job(Client(url), "job-1", lambda _: None, lambda _: None, Waits().pace)
    assert view.state == "completed"


def test_patience_ends_when_the_daemon_stays_away(unused_tcp_port):
    waits = Waits()
    with pytest.raises(Unreachable):
        follow_job(Client(f"http://127.0.0.1:{unused_tcp_port}"), "job-1", lambda _: None, lambda _: None, waits.pace)
    assert 60 < waits.at < 70
    assert max(waits.pauses) == 5


def test_no_such_job_is_not_waited_for():
    async def missing(request: web.Request) -> web.Response:
        return web.json_response({"code": "job_not_found", "detail": "No."}, status=404)

    waits = Waits()
    with serve_script(("GET", "/api/v1/jobs/{id}/events", missing)) as url, pytest.raises(ApiProblem):
        follow_job(Client(url), "job-1", lambda _: None, lambda _: None, waits.pace)
    assert waits.pauses == []


def run_one(url: str, waits: Waits | None = None):
    updates: list[Update | None] = []
    [result] = run_all(Client(url), ["pgtest1"], Order(), updates.append, looks=True, pace=(waits or Waits()).pace)
    return result, updates


class LosesAnswers(Script):
    """Its first answers to a clean-up never arrive; by the key it knows the run that it began all the same."""

    def __init__(self, losses: int, status: int, answer: dict[str, Any]) -> None:
        super().__init__([(1, "job_completed", "done")], states=(JobState.COMPLETED,))
        self.losses, self.status, self.answer = losses, status, answer
        self.keys: list[str] = []

    async def submit(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers["Idempotency-Key"])
        if len(self.keys) <= self.losses:
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        return web.json_response(self.answer, status=self.status)

    async def job(self, request: web.Request) -> web.Response:
        return web.json_response(document(samples.completed_job()))

    def routes(self):
        return (*super().routes(), ("POST", "/api/v1/failover/{name}/cleanup-failed", self.submit))


RUNNING = {"success": True, "job_id": "job-1", "status": "running"}
ENDED = {"success": True, "job_id": "job-1", "message": "Failed execution cleanup completed for pgtest1", "phases": []}
PARKED = {"code": "cleanup_failed", "detail": "It stopped.", "job_id": "job-1", "issue_id": "i-1", "status": 500}
TAKEN = {"code": "cleanup_in_progress", "detail": "It runs.", "job_id": "job-9", "status": 409}


@pytest.mark.parametrize(
    ("status", "answer", "exit_code", "job_id"),
    [(202, RUNNING, 0, "job-1"), (200, ENDED, 0, "job-1"), (500, PARKED, 5, "job-1"), (409, TAKEN, 4, "job-9")],
    ids=["running", "ended", "parked", "somebody else's"],
)
def test_a_lost_answer_is_asked_for_again_under_the_same_key(
    status: int, answer: dict[str, Any], exit_code: int, job_id: str
):
    script = LosesAnswers(1, status, answer)
    with serve_script(*script.routes()) as url:
        result, _ = run_one(url)
    assert (result.exit, result.job_id) == (exit_code, job_id)
    assert len(script.keys) == 2
    assert len(set(script.keys)) == 1


def test_answers_that_stay_lost_are_unreachable():
    script = LosesAnswers(9, 202, RUNNING)
    with serve_script(*script.routes()) as url:
        result, updates = run_one(url)
    assert result.exit == 6
    assert len(script.keys) == 3
    assert any(update is not None and "Asking again" in update.note for update in updates)


def test_a_thread_that_stumbles_still_gives_its_vm_a_result():
    async def nonsense(request: web.Request) -> web.Response:
        return web.json_response([1, 2], status=202)

    with serve_script(("POST", "/api/v1/failover/{name}/cleanup-failed", nonsense)) as url:
        result, _ = run_one(url)
    assert result.exit == 1
    assert result.problem is not None
    assert "Something unexpected" in result.problem["detail"]


def test_events_are_read_as_the_standard_says():
    stream = b"".join(
        [
            b"retry: 2000\n\n",
            b": a comment\n\n",
            b'id: 4\r\nevent: noted\r\ndata: {"sentence":\r\ndata: "two lines"}\r\n\r\n',
            b'data:{"sentence": "no blank, no type"}\n\n',
            b"id: 5\nevent: broken\ndata: no json\n\n",
            b'id: 6\nevent: cut\ndata: {"sentence": "never ended"}\n',
        ]
    )
    events = list(parse_events(stream.splitlines(keepends=True)))
    assert [(one.id, one.type, one.sentence) for one in events] == [
        ("4", "noted", "two lines"),
        ("4", "message", "no blank, no type"),
        ("5", "broken", ""),
    ]


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("a/b #7", "a%2Fb%20%237"),
        ("сервер-1", "%D1%81%D0%B5%D1%80%D0%B2%D0%B5%D1%80-1"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("a.b", "a.b"),
    ],
)
def test_names_are_one_segment_of_a_path(name, segment):
    assert in_path(name) == segment
