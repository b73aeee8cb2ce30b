"""Alive or dead: failovers, rollbacks and other jobs, replications; rule "Alive or dead" of section 2."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from oma.domain.errors import Code
from oma.domain.evidence import Evidence, GuardLimits
from oma.domain.holders import NBD_CLIENT, DeviceHolder, DeviceHolders
from oma.domain.records import NEVER, DoubtfulTime, JobLogRecord
from oma.domain.world import CloudVm
from oma.workflow.doubt import doubts, earliest
from oma.workflow.guards import judge
from oma.workflow.life import failover_life
from oma.workflow.planning import build_plan
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import NOW, OMA, TEST_VM, build, changed_records, volume_id

pytestmark = pytest.mark.rule("2-alive-failover", "2-alive-replication")

LIMITS = GuardLimits()


def life_of(**changes: object) -> tuple[bool, bool, str]:
    records = make.records(joblog=(make.joblog(**changes),))
    life = failover_life(records, records.failovers[0], NOW, LIMITS)
    return life.alive, life.finished, life.sentence


def codes(evidence: Evidence) -> list[Code]:
    return [refusal.code for refusal in judge(evidence)]


class TestFailovers:
    def test_dead_since_its_last_sign(self) -> None:
        assert life_of() == (False, False, "dead since 2026-03-01T01:30:00Z, its last sign of life.")

    @pytest.mark.parametrize(("age_s", "alive"), [(0, True), (899, True), (900, False), (-3600, True)])
    def test_a_step_or_line_younger_than_the_limit_is_life(self, age_s: int, *, alive: bool) -> None:
        assert life_of(last_activity_at=NOW - timedelta(seconds=age_s))[0] is alive

    def test_a_sign_from_the_future_says_so(self) -> None:
        sentence = life_of(last_activity_at=NOW + timedelta(hours=1))[2]
        assert sentence == "Failover failover-1 wrote to its JobLog at 2026-03-01T04:00:00Z, which is still to come."

    @pytest.mark.parametrize("status", ["failed", "pending", "cancelled", ""])
    def test_its_joblog_row_must_run(self, status: str) -> None:
        alive, finished, sentence = life_of(status=status, last_activity_at=NOW)
        assert (alive, finished) == (False, False)
        assert sentence.startswith(f"dead: its JobLog row says {status or 'nothing'}, and its last sign of life is")

    def test_without_joblog_or_signs_it_is_dead(self) -> None:
        records = make.records(joblog=())
        assert failover_life(records, records.failovers[0], NOW, LIMITS).sentence == "dead: it has no JobLog row."
        assert life_of(last_activity_at=None)[0] is False

    @pytest.mark.parametrize("status", ["", "executing", "pending", "reverting", "powering_on"])
    def test_open_at_any_other_status(self, status: str) -> None:
        records = make.records(failovers=(make.failover(status=status),), joblog=(make.joblog(last_activity_at=NOW),))
        assert Code.OPERATION_IN_PROGRESS in codes(build(records=records))

    @pytest.mark.parametrize("status", ["completed", "failed"])
    def test_a_closed_row_is_not_judged(self, status: str) -> None:
        records = make.records(failovers=(make.failover(status=status),), joblog=(make.joblog(last_activity_at=NOW),))
        assert Code.OPERATION_IN_PROGRESS not in codes(build(records=records))

    def test_a_pending_cloudstack_job_is_life_where_the_joblog_runs(self) -> None:
        busy_vm = CloudVm(TEST_VM, "pgtest1-test", "Stopped", pending_job_id="cs-1")
        by_vm = build(vms=(CloudVm(OMA, "oma", "Running"), busy_vm))
        by_volume = build(volumes=(make.on_test_vm(0), make.on_test_vm(1, pending_job_id="cs-1")))
        by_snapshot = build(own_snapshots=(make.snapshot(1, pending_job_id="cs-1"),))
        for evidence in (by_vm, by_volume, by_snapshot):
            first = judge(evidence)[0]
            assert first.code is Code.OPERATION_IN_PROGRESS
            assert "CloudStack job cs-1 is under way" in first.sentence
            dead = changed_records(evidence, joblog=(make.joblog(status="failed"),))
            assert Code.OPERATION_IN_PROGRESS not in codes(dead)

    def test_one_that_is_being_taken_back_is_no_finished_test(self) -> None:
        records = make.records(
            failovers=(make.failover(status="reverting"),), joblog=(make.joblog(status="completed"),)
        )
        life = failover_life(records, records.failovers[0], NOW, LIMITS)
        assert (life.alive, life.finished) == (False, False)
        assert judge(build(records=records)) == ()


class TestOtherJobs:
    ROLLBACK = JobLogRecord("rollback-1", "running", "cleanup", "rollback", last_activity_at=NOW - timedelta(minutes=1))

    def test_a_rollback_that_is_at_work(self) -> None:
        refusal = judge(changed_records(build(), running_jobs=(self.ROLLBACK,)))[0]
        assert refusal.code is Code.OPERATION_IN_PROGRESS
        assert refusal.sentence == "The job rollback-1 (rollback) wrote to its JobLog 60 s ago."
        assert refusal.evidence["job_id"] == "rollback-1"

    def test_a_dead_one_is_told_in_the_plan(self) -> None:
        dead = replace(self.ROLLBACK, last_activity_at=NOW - timedelta(hours=1))
        evidence = changed_records(build(), running_jobs=(dead,))
        assert judge(evidence) == ()
        told = "The job rollback-1 (rollback) says running: dead since 2026-03-01T02:00:00Z, its last sign of life."
        assert told in build_plan(evidence).observed


class TestReplications:
    SILENT = make.replication(id="repl-2", status="running", completed_at=None, change_id=None)

    @staticmethod
    def at_home(holders: DeviceHolders | None) -> Evidence:
        quiet = make.nothing_left()
        records = replace(quiet.records, failovers=(make.failover(destination_vm_id=None),))
        facts = tuple(replace(one, holders=holders) for one in quiet.volumes)
        return replace(quiet, records=records, volumes=facts)

    def test_an_open_row_that_was_touched_is_alive(self) -> None:
        touched = replace(self.SILENT, vma_last_poll_at=NOW - timedelta(seconds=899))
        refusal = judge(changed_records(build(), replications=(touched, make.replication())))[0]
        assert refusal.code is Code.OPERATION_IN_PROGRESS
        assert refusal.evidence["touched_at"] == "2026-03-01T02:45:01Z"

    def test_an_old_open_row_without_a_client_is_dead(self) -> None:
        evidence = changed_records(build(), replications=(self.SILENT, make.replication()))
        assert judge(evidence) == ()
        (told,) = [line for line in build_plan(evidence).observed if "repl-2" in line]
        assert told.startswith("Replication repl-2 says running: dead since 2026-02-28T23:00:00Z")

    def test_a_client_is_life_always(self) -> None:
        client = DeviceHolder(NBD_CLIENT, "10.0.0.7:41000")
        held = DeviceHolders(volume_id(0), complete=True, holders=(client,), unread=(), scanned_at=NOW)
        refusal = judge(self.at_home(held))[0]
        assert refusal.code is Code.OPERATION_IN_PROGRESS
        assert "NBD client 10.0.0.7:41000" in refusal.sentence

    def test_a_scan_that_could_not_see_everything_is_no_proof_of_death(self) -> None:
        unseen = DeviceHolders(volume_id(0), complete=False, holders=(), unread=("/proc/7: denied",), scanned_at=NOW)
        for holders in (unseen, None):
            evidence = changed_records(self.at_home(holders), replications=(self.SILENT, make.replication()))
            assert codes(evidence)[0] is Code.STATE_UNKNOWN


class TestDoubtfulTimes:
    DOUBT = DoubtfulTime(
        "replication_jobs", "repl-1", "completed_at", NOW - timedelta(hours=5), NOW - timedelta(hours=4), "Doubtful."
    )

    def test_the_earlier_meaning_of_what_a_row_holds(self) -> None:
        records = make.records(doubtful_times=(self.DOUBT,))
        assert earliest(records, NOW - timedelta(hours=4)) == NOW - timedelta(hours=5)
        assert earliest(records, NOW) == NOW
        assert earliest(records, None) is None

    def test_a_future_settles_nothing(self) -> None:
        ahead = NOW + timedelta(hours=3)
        records = make.records(doubtful_times=(replace(self.DOUBT, earliest=NEVER, latest=ahead),))
        assert earliest(records, ahead) < NOW - timedelta(days=365 * 1000)

    def test_the_plan_says_so_once(self) -> None:
        evidence = changed_records(build(), doubtful_times=(self.DOUBT, self.DOUBT))
        assert build_plan(evidence).observed.count("Doubtful.") == 1
        assert list(doubts(evidence.records)) == ["Doubtful."]

    def test_many_are_counted(self) -> None:
        many = tuple(replace(self.DOUBT, why=f"Doubt {number}.") for number in range(12))
        observed = build_plan(changed_records(build(), doubtful_times=many)).observed
        assert "Doubt 9." in observed
        assert "Doubt 10." not in observed
        assert "2 more recorded times are doubtful in the same way." in observed
