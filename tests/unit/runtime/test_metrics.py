from __future__ import annotations

from datetime import timedelta
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from oma.domain.events import Event, EventType
from oma.domain.issues import Issue, Severity, due_time
from oma.domain.states import IssueState
from oma.runtime.metrics import Metrics
from tests.unit.runtime.fakes import START


def values(metrics: Metrics) -> dict[str, float]:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    return {
        sample.name + "".join(f"[{value}]" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def tell(metrics: Metrics, event: EventType, after_s: float = 0.0, job_id: str = "j", **data: Any) -> None:
    metrics.on_event(Event(1, START + timedelta(seconds=after_s), job_id, "c", event, "", data))


def test_results_stand_at_nought_from_the_start():
    found = values(Metrics())
    for result in ("completed", "partial", "parked", "failed", "cancelled"):
        assert found[f"oma_cleanups_total[{result}]"] == 0


def test_a_run_is_counted_and_timed():
    metrics = Metrics()
    tell(metrics, EventType.JOB_STARTED)
    tell(metrics, EventType.STEP_STARTED, 1, phase="cleanup-snapshots")
    tell(metrics, EventType.ACTION_STARTED, 2, action_id="a", kind="revert_snapshot")
    tell(metrics, EventType.ACTION_EXECUTED, 7, action_id="a", kind="revert_snapshot", state="EXECUTED")
    tell(metrics, EventType.ACTION_STARTED, 2, action_id="b", kind="revert_snapshot")
    tell(metrics, EventType.ACTION_FAILED, 3, action_id="b", kind="revert_snapshot", state="EXECUTION_FAILED")
    tell(metrics, EventType.ACTION_SKIPPED, 3, action_id="c", kind="detach_volume")
    tell(metrics, EventType.STEP_COMPLETED, 11, phase="cleanup-snapshots")
    tell(metrics, EventType.JOB_COMPLETED, 31, result={"replica": "ready"})
    found = values(metrics)
    assert found["oma_cleanups_total[completed]"] == 1
    assert found["oma_cleanup_duration_seconds_sum"] == 31
    assert found["oma_phase_duration_seconds_sum[cleanup-snapshots]"] == 10
    assert found["oma_actions_total[revert_snapshot][EXECUTED]"] == 1
    assert found["oma_actions_total[revert_snapshot][EXECUTION_FAILED]"] == 1
    assert found["oma_actions_total[detach_volume][SKIPPED]"] == 1
    assert found["oma_action_duration_seconds_sum[revert_snapshot]"] == 6


def test_each_end_has_its_own_result():
    metrics = Metrics()
    tell(metrics, EventType.JOB_COMPLETED, result={"partial": True})
    tell(metrics, EventType.JOB_PARKED)
    tell(metrics, EventType.JOB_FAILED)
    found = values(metrics)
    assert [found[f"oma_cleanups_total[{one}]"] for one in ("completed", "partial", "parked", "failed")] == [0, 1, 1, 1]


def test_a_run_whose_beginning_was_not_seen_is_counted_but_not_timed():
    metrics = Metrics()
    tell(metrics, EventType.STEP_COMPLETED, 11, phase="reset-vm-state")
    tell(metrics, EventType.JOB_COMPLETED, 31)
    found = values(metrics)
    assert found["oma_cleanups_total[completed]"] == 1
    assert found["oma_cleanup_duration_seconds_count"] == 0


def test_nothing_is_kept_of_a_run_that_ended():
    metrics = Metrics()
    for number in range(100):
        tell(metrics, EventType.JOB_STARTED, job_id=str(number))
        tell(metrics, EventType.JOB_RELEASED if number % 2 else EventType.JOB_PARKED, job_id=str(number))
    assert metrics._begun == {}


def test_requests_and_counts():
    metrics = Metrics()
    metrics.observe_cloudstack("listVolumes", "ok", 0.2)
    metrics.observe_request("/health", 200, 0.01)
    issue = Issue(
        "i", "c", "j", None, None, "vm", "k", "x", Severity.CRITICAL, IssueState.OPEN, "t", {}, {}, None, (), START,
        due_time(Severity.CRITICAL, START),
    )  # fmt: skip
    metrics.set_counts({"running": 3, "queued": 4, "parked": 1}, [issue], START + timedelta(hours=1))
    found = values(metrics)
    assert found["oma_cloudstack_requests_total[listVolumes][ok]"] == 1
    assert found["oma_http_requests_total[/health][200]"] == 1
    assert (found["oma_jobs_running"], found["oma_jobs_queued"]) == (3, 4)
    assert found["oma_unresolved_issues[critical]"] == 1
    assert found["oma_issue_age_seconds_max"] == 3600


def test_pauses_and_stuck_jobs_stand_at_nought_from_the_start():
    found = values(Metrics())
    assert found["oma_paused"] == found["oma_jobs_stuck"] == 0
