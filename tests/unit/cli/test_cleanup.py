from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from aiohttp import web

from oma.domain.actions import ActionKind
from oma.domain.errors import Code, OmaError
from oma.domain.events import EventType
from oma.domain.jobs import Job
from oma.domain.states import ActionState, JobState, Phase
from tests.unit.cli.golden import assert_golden
from tests.unit.cli.server import serve_script
from tests.unit.gui import samples
from tests.unit.gui.runs import Run
from tests.unit.gui.stubs import StubDaemon


@pytest.fixture
def daemon() -> StubDaemon:
    daemon = StubDaemon()
    daemon.estate.add(
        samples.vm_records("pgtest1"),
        samples.vm_records("PhilB Test machine", first=10),
        samples.vm_records("db/prod #7", first=20, broken=False),
        samples.vm_records("twin", context_id="ctx-a", first=30),
        samples.vm_records("twin", context_id="ctx-b", vcenter="vcenter-2.example", first=40),
        samples.vm_records("blocked", first=50, active_job_id="job-9", open_issue_ids=("issue-1",)),
    )
    daemon.estate.on_followed = lambda job: complete(daemon, job)
    return daemon


def complete(daemon: StubDaemon, job: Job) -> None:
    run = Run(daemon, job)
    run.begin(Phase.SNAPSHOTS)
    run.act(1, ActionKind.REVERT_SNAPSHOT, ActionState.EXECUTED, "Reverted vol-1 to its snapshot.")
    run.complete()


def park(daemon: StubDaemon, job: Job) -> None:
    run = Run(daemon, job)
    run.begin(Phase.SNAPSHOTS)
    run.park()


def fail(daemon: StubDaemon, job: Job) -> None:
    error = {"code": "cloudstack_timeout", "detail": "CloudStack stayed silent.", "next": "oma doctor"}
    daemon.estate.put_job(replace(job, state=JobState.FAILED, ended_at=samples.NOW, error=error))
    daemon.estate.tell(job, EventType.JOB_FAILED, "The run failed.")


def test_a_run_is_followed_to_its_end_and_says_whether_the_replica_is_good(oma):
    printed = oma("cleanup", "pgtest1")
    assert printed.code == 0
    assert_golden("cleanup-done.txt", printed.out)
    assert_golden("cleanup-done.err.txt", printed.err)


def test_json_has_the_result_alone_on_stdout(oma):
    printed = oma("cleanup", "pgtest1", "--json")
    assert printed.code == 0
    assert_golden("cleanup-done.json", printed.out)
    assert "Reverted vol-1" in printed.err


def test_quiet_keeps_only_data(oma):
    printed = oma("cleanup", "-q", "pgtest1")
    assert printed.err == ""
    assert "replica: ready" in printed.out


def test_dry_run_prints_the_plan_and_changes_nothing(oma, daemon):
    printed = oma("cleanup", "pgtest1", "--dry-run")
    assert printed.code == 0
    assert_golden("cleanup-dry-run.txt", printed.out)
    assert daemon.estate.queued == []


def test_expect_plan_runs_the_shown_plan_and_no_other(oma, daemon):
    plan = json.loads(oma("cleanup", "pgtest1", "--dry-run", "--json").out)["results"][0]["answer"]
    stale = oma("cleanup", "pgtest1", "--expect-plan", "0" * 64)
    assert stale.code == 4
    assert "(plan_stale)" in stale.err
    assert "next: Look at the new plan" in stale.err
    assert oma("cleanup", "pgtest1", "--expect-plan", plan["plan_digest"]).code == 0
    assert [one.plan.digest for one in daemon.estate.queued] == [plan["plan_digest"]]


def test_no_wait_says_how_to_follow(oma, daemon):
    printed = oma("cleanup", "pgtest1", "--no-wait")
    [queued] = daemon.estate.queued
    assert printed.code == 0
    assert f"next: oma jobs follow {queued.job_id}" in printed.out


def test_phases_reach_the_daemon(oma, daemon):
    printed = oma("cleanup", "pgtest1", "--phases", "analyze-volume-state, cleanup-snapshots")
    assert printed.code == 0
    assert daemon.estate.queued[0].request["phases"] == ["analyze-volume-state", "cleanup-snapshots"]


def test_unknown_phase_is_a_usage_error_that_names_what_is_allowed(oma, daemon):
    printed = oma("cleanup", "pgtest1", "--phases", "tidy")
    assert printed.code == 2
    assert "reset-vm-state" in printed.err
    assert daemon.estate.queued == []


def test_a_parked_run_needs_a_person(oma, daemon):
    daemon.estate.on_followed = lambda job: park(daemon, job)
    printed = oma("cleanup", "pgtest1")
    assert printed.code == 5
    assert printed.out == ""
    assert_golden("cleanup-parked.err.txt", printed.err)


@pytest.mark.parametrize(("end", "code"), [(complete, 0), (park, 5), (fail, 1)])
def test_a_run_that_ends_before_the_answer_exits_the_same(oma, daemon, end, code):
    daemon.estate.on_queued = lambda job: end(daemon, job)
    assert oma("cleanup", "pgtest1").code == code


def test_a_failed_run_is_a_failure(oma, daemon):
    daemon.estate.on_followed = lambda job: fail(daemon, job)
    printed = oma("cleanup", "pgtest1")
    assert printed.code == 1
    assert "error: CloudStack stayed silent. (cloudstack_timeout)" in printed.err
    assert "next: oma doctor" in printed.err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nobody"], 3, "No VM is named 'nobody'"),
        (["PGTEST1"], 3, "Did you mean 'pgtest1'?"),
        (["db/prod #7"], 4, "(nothing_to_clean)"),
        (["twin"], 4, "--context-id ctx-b  vcenter-2.example"),
        (["blocked"], 5, "(needs_resolution)"),
        (["twin", "--context-id", "ctx-b"], 0, "Reverted vol-1"),
        (["pgtest1", "twin", "--context-id", "ctx-b"], 2, "speak of one VM"),
        ([], 2, "Missing argument"),
        (["."], 3, "No VM is named '.'"),
        (["..", "--dry-run"], 3, "No VM is named '..'"),
        (["pgtest1", "--wrong"], 2, "No such option"),
    ],
)
def test_exit_codes_of_what_is_asked_for(oma, arguments, code, sentence):
    printed = oma("cleanup", *arguments)
    assert sentence in printed.err
    assert printed.code == code


def test_every_refusal_is_printed_with_its_evidence_and_the_next_step(oma, daemon):
    daemon.world.missing = {samples.volume_id(1)}
    daemon.world.foreign = {samples.volume_id(2)}
    printed = oma("cleanup", "pgtest1")
    assert printed.code == 4
    assert printed.out == ""
    assert_golden("cleanup-refused.err.txt", re.sub("correlation id: .*", "correlation id: …", printed.err))


def test_a_refused_vm_stops_no_other_and_the_worst_code_wins(oma, daemon):
    printed = oma("cleanup", "db/prod #7", "pgtest1", "nobody", "PhilB Test machine")
    assert_golden("cleanup-several.txt", scrubbed(printed.out, daemon))
    assert printed.code == 4
    assert "error: nobody: No VM is named 'nobody'" in printed.err
    assert "PhilB Test machine: Reverted vol-1 to its snapshot." in printed.err
    assert sorted(one.plan.vm_name for one in daemon.estate.queued) == ["PhilB Test machine", "pgtest1"]


def scrubbed(text: str, daemon: StubDaemon) -> str:
    """Which VM's thread came first decides who got which id."""
    for queued in daemon.estate.queued:
        text = text.replace(queued.job_id, f"{'job of ' + queued.plan.vm_name:<36}"[:36])
    return text


def test_several_with_one_parked_exit_as_the_parked_one(oma, daemon):
    daemon.estate.on_followed = lambda job: (park if job.vm_name == "pgtest1" else complete)(daemon, job)
    assert oma("cleanup", "pgtest1", "PhilB Test machine", "nobody").code == 5


def test_one_at_a_time_is_enough(oma, daemon):
    printed = oma("cleanup", "pgtest1", "PhilB Test machine", "twin", "--max-parallel", "1")
    assert printed.code == 4
    assert len(daemon.estate.queued) == 2


def test_the_same_name_twice_is_run_once(oma, daemon):
    assert oma("cleanup", "pgtest1", "pgtest1").code == 0
    assert len(daemon.estate.queued) == 1


def test_hostile_names_cannot_write_to_the_terminal(oma, daemon):
    name = "\x1b]0;owned\x07\x1b[2J\u202evm [red]x[/red]"
    daemon.estate.add(samples.vm_records(name, context_id="evil", first=60))
    for arguments in (("vms",), ("cleanup", name), ("cleanup", name, "--dry-run"), ("cleanup", name, "nobody")):
        printed = oma(*arguments)
        assert "\x1b" not in printed.out + printed.err
        assert "\u202e" not in printed.out + printed.err
    assert "[red]x[/red]" in oma("vms").out


def test_database_away_is_told_with_its_code(oma, daemon):
    daemon.estate.fault = OmaError(Code.DATABASE_UNAVAILABLE, "The disk is full.", next="Make room.")
    printed = oma("cleanup", "blocked", "--dry-run")
    assert printed.code == 1
    assert "The disk is full. (database_unavailable)" in printed.err
    assert "next: Make room." in printed.err


async def refuse_cross_site(request: web.Request) -> web.Response:
    body = {"code": "cross_site", "title": "no", "detail": "The Host is neither loopback nor allowed.", "status": 403}
    return web.json_response(body, status=403, content_type="application/problem+json")


async def say_something_else(request: web.Request) -> web.Response:
    return web.Response(text="<html>nginx</html>")


@pytest.mark.parametrize(
    ("handler", "code", "sentence"),
    [
        (refuse_cross_site, 7, "neither loopback nor allowed"),
        (say_something_else, 6, "something else listens there"),
    ],
)
def test_exit_codes_of_whoever_answers(oma_at, handler, code, sentence):
    with serve_script(("POST", "/api/v1/failover/{name}/cleanup-failed", handler)) as url:
        printed = oma_at(url, "cleanup", "pgtest1")
    assert printed.code == code
    assert sentence in printed.err


def test_no_daemon_is_said_with_what_to_do(oma_at, unused_tcp_port):
    for arguments in (("cleanup", "pgtest1"), ("vms",), ("jobs", "list")):
        printed = oma_at(f"http://127.0.0.1:{unused_tcp_port}", *arguments)
        assert printed.code == 6
        assert "connection refused" in printed.err
        assert printed.out == ""


@pytest.mark.parametrize("server", ["127.0.0.1:8082", "ftp://x", "http://", "http://x:port"])
def test_a_server_that_is_no_address_is_a_usage_error(oma_at, server):
    printed = oma_at(server, "vms")
    assert printed.code == 2
    assert "OMA_SERVER" in printed.err
