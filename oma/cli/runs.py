"""Clean-ups of several VMs: each is asked for and followed by a thread of its own; none waits for another's fate."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from oma.cli.client import ApiProblem, Client, Unreachable, in_path
from oma.cli.exits import Exit, exit_of_problem
from oma.cli.follow import Pace, follow_job, get_job
from oma.cli.reading import JobView
from oma.cli.stream import ServerEvent
from oma.domain.words import SILENT, Words

SUBMIT_ATTEMPTS: Final = 3
LOOK_GAP_S: Final = 0.25
ACCEPTED: Final = 202


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for; the same for every VM of the call. `at_once` runs are followed at the same time."""

    dry_run: bool = False
    phases: tuple[str, ...] | None = None
    context_id: str | None = None
    expect_plan: str | None = None
    wait: bool = True
    at_once: int = 8
    words: Words = SILENT

    def body(self) -> dict[str, Any]:
        asked = {
            "dry_run": self.dry_run or None,
            "phases": list(self.phases) if self.phases is not None else None,
            "context_id": self.context_id,
            "expect_plan": self.expect_plan,
            **{name: value for name, value in self.words.as_json().items() if name in self.words.spoken},
            "reason": self.words.reason,
        }
        return {key: value for key, value in asked.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Result:
    """How it ended for one VM. `problem` is set unless it is done; `answer` is what the daemon said."""

    vm_name: str
    outcome: str
    exit: Exit
    job_id: str = ""
    answer: dict[str, Any] = field(default_factory=dict)
    problem: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "vm_name": self.vm_name,
            "outcome": self.outcome,
            "exit_code": int(self.exit),
            "job_id": self.job_id or None,
            "answer": self.answer or None,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class Update:
    """News of the VM at `place` in the call: a job, an event, a note, a fresh look, or its result."""

    place: int
    job_id: str = ""
    event: ServerEvent | None = None
    note: str = ""
    view: JobView | None = None
    result: Result | None = None


def run_all(
    client: Client,
    names: Sequence[str],
    order: Order,
    on_update: Callable[[Update | None], None],
    *,
    looks: bool,
    pace: Pace | None = None,
) -> list[Result]:
    """Runs every VM to its end and returns the results in the order of the names; a refused one stops no other.

    `on_update` is called in this thread, with None whenever a moment passed without news. `looks` reads the job
    again after events, for a view of its phases and volumes.
    """
    news: queue.Queue[Update] = queue.Queue()
    turns = threading.Semaphore(order.at_once)
    looker = _Looker(client, news) if looks else None
    for place, name in enumerate(names):
        run = _Run(client, order, news, place=place, name=name, looker=looker, pace=pace or Pace())
        threading.Thread(target=run.in_turn, args=(turns,), name=f"cleanup-{place}", daemon=True).start()
    results: dict[int, Result] = {}
    while len(results) < len(names):
        try:
            update = news.get(timeout=LOOK_GAP_S)
        except queue.Empty:
            on_update(None)
            continue
        if update.result is not None:
            results[update.place] = update.result
        on_update(update)
    if looker is not None:
        looker.stop()
    return [results[place] for place in range(len(names))]


class _Run:
    """One VM: submit, follow, and always exactly one result."""

    def __init__(
        self,
        client: Client,
        order: Order,
        news: queue.Queue[Update],
        *,
        place: int,
        name: str,
        looker: _Looker | None,
        pace: Pace,
    ) -> None:
        self._client, self._order, self._news = client, order, news
        self._place, self._name, self._looker, self._pace = place, name, looker, pace
        self._job_id = ""

    def in_turn(self, turns: threading.Semaphore) -> None:
        with turns:
            result = self._ended_somehow()
        self._news.put(Update(self._place, self._job_id, result=result))

    def _ended_somehow(self) -> Result:
        try:
            return self._run()
        except ApiProblem as error:
            return self._failed(error.document)
        except Unreachable as error:
            follow = f"When it is back: oma jobs follow {self._job_id}" if self._job_id else ""
            problem = {"detail": str(error), "code": "unreachable", **({"next": follow} if follow else {})}
            return Result(self._name, "unreachable", Exit.UNREACHABLE, self._job_id, problem=problem)
        except Exception as error:  # noqa: BLE001  this thread's outermost edge: the other VMs go on
            problem = {"detail": f"Something unexpected happened: {type(error).__name__}: {error}"}
            return Result(self._name, "failed", Exit.FAILED, self._job_id, problem=problem)

    def _run(self) -> Result:
        status, answer = self._submit()
        if status != ACCEPTED:
            return self._answered(answer)
        self._job_id = str(answer["job_id"])
        self._news.put(Update(self._place, self._job_id))
        if not self._order.wait:
            return Result(self._name, "accepted", Exit.DONE, self._job_id, answer)
        view = follow_job(self._client, self._job_id, self._on_event, self._on_note, self._pace)
        self._news.put(Update(self._place, self._job_id, view=view))
        return result_of_job(view, self._name)

    def _submit(self) -> tuple[int, dict[str, Any]]:
        path = f"/failover/{in_path(self._name)}/cleanup-failed"
        return ask_for_run(self._client, path, self._order.body(), self._on_note, self._pace)

    def _answered(self, answer: dict[str, Any]) -> Result:
        """An answer without a job to follow: a dry run, or a run of the same key that has ended."""
        if answer.get("dry_run"):
            return Result(self._name, "dry run", Exit.DONE, answer=answer)
        return result_of_answer(answer, self._name)

    def _failed(self, problem: dict[str, Any]) -> Result:
        code = exit_of_problem(problem)
        return Result(
            self._name, OUTCOME_WORDS.get(code, "failed"), code, str(problem.get("job_id") or ""), {}, problem
        )

    def _on_event(self, event: ServerEvent) -> None:
        self._news.put(Update(self._place, self._job_id, event=event))
        if self._looker is not None:
            self._looker.look_at(self._place, self._job_id)

    def _on_note(self, note: str) -> None:
        self._news.put(Update(self._place, self._job_id, note=note))


def ask_for_run(
    client: Client, path: str, body: dict[str, Any], on_note: Callable[[str], None], pace: Pace
) -> tuple[int, dict[str, Any]]:
    """Asked again when the answer was lost: under the same key it is the same run, running or ended."""
    request_id = str(uuid4())
    headers = {"Prefer": "respond-async", "Idempotency-Key": request_id, "X-Correlation-ID": request_id}
    for attempt in range(1, SUBMIT_ATTEMPTS + 1):
        try:
            answer = client.post(path, body, headers)
        except Unreachable as error:
            if not error.maybe_sent or attempt == SUBMIT_ATTEMPTS:
                raise
            on_note(f"{error} Asking again.")
            pace.pause(attempt)
        else:
            return answer.status, answer.body
    raise AssertionError("the last attempt returns or raises")


def result_of_answer(answer: dict[str, Any], vm_name: str) -> Result:
    """A run that had ended when it was answered."""
    outcome = "partial" if answer.get("partial") else "done"
    return Result(vm_name, outcome, Exit.DONE, str(answer.get("job_id", "")), answer)


OUTCOME_WORDS: Final = {
    Exit.REFUSED: "refused",
    Exit.NOT_FOUND: "not found",
    Exit.NEEDS_RESOLUTION: "needs resolution",
    Exit.NOT_ALLOWED: "not allowed",
    Exit.UNREACHABLE: "unreachable",
    Exit.USAGE: "invalid",
}


def result_of_job(view: JobView, vm_name: str) -> Result:
    """What an ended job means to the caller; a parked one needs a person."""
    result = {
        "job_id": view.id,
        "duration_seconds": view.document.get("duration_seconds"),
        "correlation_id": view.document.get("correlation_id"),
        **view.result,
    }
    if view.state == "completed":
        return Result(vm_name, "partial" if view.result.get("partial") else "done", Exit.DONE, view.id, result)
    problem = {
        "code": "cleanup_failed",
        "detail": f"The clean-up of {vm_name} ended {view.state}.",
        "job_id": view.id,
        **view.error,
        **_issue_of(view),
    }
    if view.state == "parked":
        return Result(vm_name, "needs resolution", Exit.NEEDS_RESOLUTION, view.id, {}, problem)
    word = "cancelled" if view.state == "cancelled" else "failed"
    return Result(vm_name, word, Exit.FAILED, view.id, {}, problem)


def _issue_of(view: JobView) -> dict[str, Any]:
    """The first open issue of the job, where its error does not name one."""
    issues = view.document.get("issues") or ()
    if not issues or view.error.get("issue_id"):
        return {}
    return {"issue_id": issues[0]["id"], "guidance": view.error.get("guidance") or issues[0].get("guidance") or []}


class _Looker(threading.Thread):
    """Reads jobs again after events, each at most once per gap, so that the last change is always seen."""

    def __init__(self, client: Client, news: queue.Queue[Update]) -> None:
        super().__init__(name="look-at-jobs", daemon=True)
        self._client, self._news = client, news
        self._dirty: dict[str, int] = {}
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self.start()

    def look_at(self, place: int, job_id: str) -> None:
        with self._changed:
            self._dirty[job_id] = place
            self._changed.notify()

    def stop(self) -> None:
        self._stopped.set()
        with self._changed:
            self._changed.notify()

    def run(self) -> None:
        while not self._stopped.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._dirty or self._stopped.is_set())
                dirty, self._dirty = self._dirty, {}
            for job_id, place in dirty.items():
                try:
                    self._news.put(Update(place, job_id, view=get_job(self._client, job_id)))
                except (ApiProblem, Unreachable):
                    continue
            self._stopped.wait(LOOK_GAP_S)
