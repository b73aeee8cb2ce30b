"""The figures for Prometheus: fed by committed events, by the clients' observers and by the journal's counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from oma.domain.circuit import TARGETS
from oma.domain.events import ENDING_EVENTS, Event, EventType
from oma.domain.issues import Issue, Severity
from oma.domain.states import JobState

LONG: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200)
"""Seconds, for what CloudStack takes to do."""
SHORT: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds, for one request."""

RESULTS: Final = {
    EventType.JOB_COMPLETED: "completed",
    EventType.JOB_PARKED: "parked",
    EventType.JOB_FAILED: "failed",
    EventType.JOB_CANCELLED: "cancelled",
}
PARTIAL: Final = "partial"
STEP_ENDS: Final = frozenset({EventType.STEP_COMPLETED, EventType.STEP_FAILED})
ACTION_ENDS: Final = {
    EventType.ACTION_EXECUTED: "EXECUTED",
    EventType.ACTION_FAILED: "EXECUTION_FAILED",
    EventType.ACTION_SKIPPED: "SKIPPED",
}


class Metrics:
    """One registry of our own: two daemons in one process don't mix their figures."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._begun: dict[str, dict[str, datetime]] = {}
        self._define_runs()
        self._define_requests()

    def _define_runs(self) -> None:
        registry = self.registry
        self.cleanups = Counter("oma_cleanups", "Runs that ended.", ["result"], registry=registry)
        for result in (*RESULTS.values(), PARTIAL):
            self.cleanups.labels(result)
        self.cleanup_s = Histogram("oma_cleanup_duration_seconds", "A run.", buckets=LONG, registry=registry)
        self.phase_s = Histogram("oma_phase_duration_seconds", "A phase.", ["phase"], buckets=LONG, registry=registry)
        self.actions = Counter("oma_actions", "Actions that ended.", ["kind", "state"], registry=registry)
        self.action_s = Histogram(
            "oma_action_duration_seconds", "An action.", ["kind"], buckets=LONG, registry=registry
        )
        self.jobs_running = Gauge("oma_jobs_running", "Jobs at work.", registry=registry)
        self.jobs_queued = Gauge("oma_jobs_queued", "Jobs that wait.", registry=registry)
        self.jobs_stuck = Gauge("oma_jobs_stuck", "Jobs that have not ended for too long.", registry=registry)
        self.circuit_open = Gauge(
            "oma_circuit_open", "1 while the target is away and runs wait.", ["target"], registry=registry
        )
        self.set_circuits(dict.fromkeys(TARGETS.values(), False))
        self.paused = Gauge("oma_paused", "Pauses in force: of all, an operation or a VM.", registry=registry)
        self.issues = Gauge("oma_unresolved_issues", "Open issues.", ["severity"], registry=registry)
        self.issue_age_s = Gauge("oma_issue_age_seconds_max", "Age of the oldest open issue.", registry=registry)

    def _define_requests(self) -> None:
        registry = self.registry
        self.cloudstack = Counter(
            "oma_cloudstack_requests", "Requests to CloudStack.", ["command", "result"], registry=registry
        )
        self.cloudstack_s = Histogram(
            "oma_cloudstack_request_duration_seconds", "A request.", ["command"], buckets=SHORT, registry=registry
        )
        self.http = Counter("oma_http_requests", "Requests to us.", ["route", "status"], registry=registry)
        self.http_s = Histogram(
            "oma_http_request_duration_seconds", "A request.", ["route"], buckets=SHORT, registry=registry
        )

    def set_circuits(self, away: Mapping[str, bool]) -> None:
        for target, is_away in away.items():
            self.circuit_open.labels(target).set(is_away)

    def render(self) -> tuple[bytes, str]:
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def observe_cloudstack(self, command: str, result: str, seconds: float) -> None:
        self.cloudstack.labels(command, result).inc()
        self.cloudstack_s.labels(command).observe(seconds)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        self.http.labels(route, str(status)).inc()
        self.http_s.labels(route).observe(seconds)

    def set_counts(self, jobs: Mapping[str, int], issues: Sequence[Issue], now: datetime) -> None:
        """What the journal holds right now."""
        self.jobs_running.set(jobs.get(JobState.RUNNING.value, 0))
        self.jobs_queued.set(jobs.get(JobState.QUEUED.value, 0))
        for severity in Severity:
            self.issues.labels(severity.value).set(sum(issue.severity is severity for issue in issues))
        self.issue_age_s.set(max(((now - issue.opened_at).total_seconds() for issue in issues), default=0.0))

    def on_event(self, event: Event) -> None:
        """Counts one committed event; durations only where this process saw both ends."""
        if event.job_id is None:
            return
        begun = self._begun.setdefault(event.job_id, {})
        kind, phase = str(event.data.get("kind", "")), str(event.data.get("phase", ""))
        if event.type is EventType.JOB_STARTED:
            begun.setdefault("job", event.at)
        elif event.type is EventType.STEP_STARTED:
            begun[f"step {phase}"] = event.at
        elif event.type is EventType.ACTION_STARTED:
            begun[f"action {event.data.get('action_id')}"] = event.at
        elif event.type in STEP_ENDS:
            _observe(self.phase_s.labels(phase), begun.pop(f"step {phase}", None), event.at)
        elif event.type in ACTION_ENDS:
            self.actions.labels(kind, str(event.data.get("state") or ACTION_ENDS[event.type])).inc()
            _observe(self.action_s.labels(kind), begun.pop(f"action {event.data.get('action_id')}", None), event.at)
        elif event.type in ENDING_EVENTS:
            self.cleanups.labels(_result_of(event)).inc()
            _observe(self.cleanup_s, begun.get("job"), event.at)
        if event.type in ENDING_EVENTS or event.type is EventType.JOB_RELEASED or not begun:
            self._begun.pop(event.job_id, None)


def _result_of(event: Event) -> str:
    result = event.data.get("result")
    partial = isinstance(result, dict) and bool(result.get("partial"))
    return PARTIAL if partial and event.type is EventType.JOB_COMPLETED else RESULTS[event.type]


def _observe(histogram: Histogram, begun: datetime | None, ended: datetime) -> None:
    if begun is not None:
        histogram.observe(max((ended - begun).total_seconds(), 0.0))
