from __future__ import annotations

import json
from dataclasses import replace

import pytest

from oma.domain.events import EventType
from oma.domain.states import Phase, StepStatus
from tests.unit.cli.golden import assert_golden
from tests.unit.gui import samples
from tests.unit.gui.stubs import StubDaemon


@pytest.fixture
def daemon() -> StubDaemon:
    daemon = StubDaemon()
    daemon.estate.add(
        samples.vm_records("pgtest1"),
        samples.vm_records("PhilB Test machine", first=10, vcenter="vcenter-2.example"),
        samples.vm_records("db/prod #7", first=20, broken=False),
        samples.vm_records("сервер-1", first=30, status="cleanup_required", open_issue_ids=("issue-1",)),
        samples.vm_records("仮想マシン", first=40, broken=False),
    )
    daemon.estate.put_job(samples.completed_job("job-1"))
    parked = samples.parked_job("job-2", "сервер-1")
    daemon.estate.put_job(replace(parked, plan=samples.plan("сервер-1", powered_off=True)))
    daemon.estate.issues.append(samples.issue("job-2", "сервер-1"))
    daemon.estate.steps["job-2"] = list(samples.steps(Phase.SNAPSHOTS, StepStatus.FAILED))
    daemon.estate.actions["job-2"] = [replace(one, job_id="job-2") for one in samples.actions_of_run()]
    daemon.estate.log["job-2"] = [
        samples.log_line(1, "Began cleanup-snapshots.", job_id="job-2"),
        samples.log_line(2, "CloudStack 530: Unable to revert volume", "ERROR", job_id="job-2"),
    ]
    return daemon


def test_vms(oma):
    printed = oma("vms")
    assert printed.code == 0
    assert_golden("vms.txt", printed.out)
    assert printed.err == ""


def test_vms_json(oma):
    printed = oma("vms", "--json", "--needs-cleanup")
    assert_golden("vms-needs.json", printed.out)
    assert [one["vm_name"] for one in json.loads(printed.out)["items"]] == ["PhilB Test machine", "pgtest1"]


def test_vms_are_filtered_by_the_daemon(oma):
    assert "pgtest1" in oma("vms", "--needs-cleanup").out
    assert "db/prod" not in oma("vms", "--needs-cleanup").out
    assert "сервер-1" in oma("vms", "--status", "cleanup_required").out
    nothing = oma("vms", "--search", "nobody")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "No VM fits.\n")


def test_all_pages_are_read(oma, daemon):
    for number in range(600):
        daemon.estate.add(samples.vm_records(f"vm-{number:03d}", broken=False, first=100 + 2 * number))
    assert len(oma("vms").out.splitlines()) == 1 + 605


def test_jobs_list(oma):
    printed = oma("jobs", "list")
    assert printed.code == 0
    assert_golden("jobs-list.txt", printed.out)


def test_jobs_list_is_filtered_and_limited(oma):
    assert "job-1" in oma("jobs", "list", "--vm", "pgtest1").out
    assert "job-2" not in oma("jobs", "list", "--vm", "pgtest1").out
    assert [one["id"] for one in json.loads(oma("jobs", "list", "--limit", "1", "--json").out)["items"]] == ["job-2"]
    bad = oma("jobs", "list", "--since", "yesterday")
    assert bad.code == 2
    assert "RFC 3339" in bad.err


def test_jobs_show(oma):
    printed = oma("jobs", "show", "job-2")
    assert printed.code == 0
    assert_golden("jobs-show.txt", printed.out)
    assert printed.out.startswith("The source VM was powered off")


def test_jobs_show_json_is_the_apis_own_document(oma):
    assert_golden("jobs-show.json", oma("jobs", "show", "job-2", "--json").out)


def test_jobs_log(oma):
    assert_golden("jobs-log.txt", oma("jobs", "log", "job-2").out)
    lines = oma("jobs", "log", "job-2", "--json").out.splitlines()
    assert [json.loads(line)["level"] for line in lines] == ["INFO", "ERROR"]


@pytest.mark.parametrize("command", ["show", "log", "follow"])
def test_no_such_job(oma, command):
    printed = oma("jobs", command, "nowhere")
    assert printed.code == 3
    assert "error: No job has the id 'nowhere'" in printed.err
    assert printed.out == ""


def test_jobs_follow_exits_as_the_run_did(oma, daemon):
    daemon.estate.tell(daemon.estate.job_rows["job-1"], EventType.JOB_COMPLETED, "Completed.")
    daemon.estate.tell(daemon.estate.job_rows["job-2"], EventType.JOB_PARKED, "Parked.")
    done, parked = oma("jobs", "follow", "job-1"), oma("jobs", "follow", "job-2")
    assert (done.code, parked.code) == (0, 5)
    assert done.err == "Completed.\n"
    assert "replica: ready" in done.out
    assert "1. Look at the job" in parked.err
