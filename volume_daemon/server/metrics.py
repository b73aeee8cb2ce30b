"""The daemon's figures for Prometheus, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from volume_daemon.server.queue import FairQueue
from volume_daemon.server.records import Entry

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """Told by whoever does the work; names begin with `volume_daemon_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._operations = Counter(
            "volume_daemon_operations", "Operations that ended.", ["type", "result"], registry=self.registry
        )
        self._operation_seconds = Histogram(
            "volume_daemon_operation_duration_seconds",
            "From CloudStack being asked to the end.",
            ["type"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._calls = Counter(
            "volume_daemon_cloudstack_requests", "Calls to CloudStack.", ["command", "result"], registry=self.registry
        )
        self._call_seconds = Histogram(
            "volume_daemon_cloudstack_request_duration_seconds",
            "Calls to CloudStack.",
            ["command"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._requests = Counter(
            "volume_daemon_http_requests", "Requests.", ["route", "status"], registry=self.registry
        )
        self._request_seconds = Histogram(
            "volume_daemon_http_request_duration_seconds",
            "Requests.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def watch_queue(self, queue: FairQueue, count_live: Callable[[], int]) -> None:
        waiting = Gauge("volume_daemon_queue_waiting", "Operations waiting for their turn.", registry=self.registry)
        served = Gauge("volume_daemon_queue_outstanding", "Calls that CloudStack has.", registry=self.registry)
        live = Gauge("volume_daemon_operations_open", "Operations that have not ended.", registry=self.registry)
        waiting.set_function(queue.count_waiting)
        served.set_function(queue.count_served)
        live.set_function(count_live)

    def observe_operation(self, entry: Entry) -> None:
        self._operations.labels(entry.type.value, entry.status.value).inc()
        if entry.sent_at is not None and entry.completed_at is not None:
            seconds = max(0.0, (entry.completed_at - entry.sent_at).total_seconds())
            self._operation_seconds.labels(entry.type.value).observe(seconds)

    def observe_call(self, command: str, result: str, seconds: float) -> None:
        self._calls.labels(command, result).inc()
        self._call_seconds.labels(command).observe(seconds)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        if not route.endswith("/operations/{operation_id}"):  # a long poll's duration says nothing
            self._request_seconds.labels(route).observe(seconds)

    def as_text(self) -> bytes:
        return generate_latest(self.registry)

    def as_json(self) -> dict[str, float]:
        """Samples by name and labels."""
        samples = (sample for family in self.registry.collect() for sample in family.samples)
        return {_key(sample.name, sample.labels): sample.value for sample in samples if "_bucket" not in sample.name}


def _key(name: str, labels: dict[str, str]) -> str:
    inner = ",".join(f"{key}={value}" for key, value in labels.items())
    return f"{name}{{{inner}}}" if inner else name
