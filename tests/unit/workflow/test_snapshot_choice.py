"""Which snapshot a volume goes back to: tracked, named by a person, or none, and what the operator is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence, SnapshotFacts
from oma.domain.words import Words
from oma.domain.world import CloudSnapshot, CloudVolume
from oma.workflow.guards import judge
from oma.workflow.planning import build_plan
from oma.workflow.snapshot_rules import choose_snapshot, list_candidates
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import (
    FAILED_OVER_AT,
    SNAPSHOT_AT,
    build,
    changed_records,
    snapshot_id,
    unanswered,
    volume_id,
)

pytestmark = pytest.mark.rule("5-places", "5-fits", "5-candidate")

CANDIDATE = "cand1da7-5555-4000-8000-000000000000"
FOREIGN = "ffffffff-aaaa-4000-8000-000000000000"
REASON = "the tracking failed that night"


def candidate(number: int = 1, **changes: Any) -> CloudSnapshot:
    return make.snapshot(number, **{"id": CANDIDATE, "name": "multi-test-failover-pgtest1", **changes})


def without(number: int = 1, *own: CloudSnapshot, **changes: Any) -> Evidence:
    """Nothing tracks a snapshot of this volume; these stand untracked in CloudStack."""
    return build(snapshots=(make.tracked(1 - number),), own_snapshots=own, **changes)


def named(evidence: Evidence, *listed: CloudSnapshot, **pairs: str) -> Evidence:
    said = pairs or {volume_id(1): CANDIDATE}
    words = Words(snapshots=tuple(sorted(said.items())), reason=REASON)
    return replace(evidence, words=words, named_snapshots=listed)


def only(evidence: Evidence) -> Refusal:
    refusals = judge(evidence)
    assert len(refusals) == 1, [refusal.sentence for refusal in refusals]
    return refusals[0]


class TestTracked:
    def test_one_named_only_by_the_failovers_row_is_used_for_any_volume(self) -> None:
        evidence = build(
            snapshots=(
                make.tracked(0),
                SnapshotFacts(volume_id(1), snapshot_id(1), ("failover_jobs",), make.snapshot(1)),
            )
        )
        assert judge(evidence) == ()
        plan = build_plan(evidence)
        assert plan.get_volume(volume_id(1)).snapshot_id == snapshot_id(1)
        assert f"goes back to snapshot {snapshot_id(1)} (tracked in failover_jobs, made" in " ".join(plan.observed)

    def test_a_dead_id_beside_a_good_one_is_noted(self) -> None:
        dead = SnapshotFacts(volume_id(1), "dead", ("device_mappings",), None)
        evidence = build(snapshots=(make.tracked(0), make.tracked(1), dead))
        assert judge(evidence) == ()
        assert "The snapshot dead of disk-1, tracked in device_mappings, is no longer listed by CloudStack." in (
            build_plan(evidence).observed
        )

    def test_two_that_fit_are_a_mismatch_that_names_both(self) -> None:
        younger = make.snapshot(1, id="younger", created=SNAPSHOT_AT + timedelta(minutes=5))
        twin = SnapshotFacts(volume_id(1), "younger", ("device_mappings",), younger)
        refusal = only(build(snapshots=(make.tracked(0), make.tracked(1), twin)))
        assert refusal.code is Code.SNAPSHOT_MISMATCH
        assert f"Two snapshots fit disk-1: {snapshot_id(1)} (" in refusal.sentence
        assert "younger (" in refusal.sentence
        assert refusal.next_step.endswith(
            f"oma cleanup pgtest1 --snapshot {volume_id(1)}={snapshot_id(1)} --reason WHY"
        )

    def test_a_stale_one_beside_a_good_one_goes_with_it(self) -> None:
        stale = make.snapshot(1, id="stale", created=FAILED_OVER_AT - timedelta(days=9))
        tracked = SnapshotFacts(volume_id(1), "stale", ("device_mappings",), stale)
        evidence = build(snapshots=(make.tracked(0), make.tracked(1), tracked))
        assert judge(evidence) == ()
        plan = build_plan(evidence)
        assert plan.get_volume(volume_id(1)).snapshot_id == snapshot_id(1)
        assert any("stale of disk-1" in line and "is not the one" in line for line in plan.observed)

    def test_a_failovers_snapshot_of_somebody_elses_volume_is_left_alone(self) -> None:
        foreign = SnapshotFacts(None, "foreign", ("failover_jobs",), make.snapshot(1, id="foreign", volume_id=FOREIGN))
        evidence = build(snapshots=(make.tracked(0), make.tracked(1), foreign))
        assert judge(evidence) == ()
        plan = build_plan(evidence)
        assert "foreign" not in {action.target.snapshot_id for action in plan.actions}
        assert any(f"is on volume {FOREIGN} in CloudStack" in line for line in plan.observed)

    def test_a_dead_one_that_only_the_failover_named_is_told_where_one_is_missing(self) -> None:
        dead = SnapshotFacts(None, "dead", ("failover_jobs",), None)
        refusal = only(build(snapshots=(make.tracked(0), dead)))
        assert refusal.code is Code.SNAPSHOT_MISSING
        assert "CloudStack no longer lists dead." in refusal.sentence
        assert refusal.evidence["tracked_for_no_volume"][0]["tracked_in"] == ["failover_jobs"]


class TestOlderInBetween:
    def test_an_older_one_of_ours_since_the_failover_makes_it_doubtful(self) -> None:
        older = candidate(created=SNAPSHOT_AT - timedelta(minutes=1))
        refusal = only(build(own_snapshots=(make.snapshot(1), older)))
        assert refusal.code is Code.SNAPSHOT_MISMATCH
        assert "may already hold what a failover wrote" in refusal.sentence
        assert CANDIDATE in refusal.sentence
        assert f"--snapshot {volume_id(1)}={CANDIDATE}" in refusal.next_step

    @pytest.mark.parametrize(
        "other",
        [
            candidate(created=FAILED_OVER_AT - timedelta(seconds=1)),
            candidate(created=SNAPSHOT_AT + timedelta(seconds=1)),
            candidate(created=SNAPSHOT_AT - timedelta(minutes=1), name="backup-of-tuesday"),
            candidate(created=SNAPSHOT_AT - timedelta(minutes=1), volume_id=FOREIGN),
        ],
    )
    def test_others_do_not(self, other: CloudSnapshot) -> None:
        assert judge(build(own_snapshots=(make.snapshot(1), other))) == ()

    def test_where_nobody_lists_them_it_cannot_be_told(self) -> None:
        refusal = only(build(own_snapshots=unanswered("the snapshots of test failovers")))
        assert refusal.code is Code.STATE_UNKNOWN
        assert "which snapshot fits can't be told" in refusal.sentence

    def test_nobody_has_to_list_them_where_nothing_is_reverted(self) -> None:
        evidence = changed_records(
            build(
                volumes=(make.at_home(0), make.at_home(1)),
                devices=make.scan(0, 1),
                own_snapshots=unanswered("the snapshots of test failovers"),
            ),
            joblog=(make.joblog(step_names=()),),
        )
        assert judge(evidence) == ()
        assert any("untracked snapshots are left can't be told" in line for line in build_plan(evidence).observed)


class TestCandidates:
    def test_one_that_would_pass_is_shown_with_the_very_command(self) -> None:
        refusal = only(without(1, candidate()))
        assert refusal.code is Code.SNAPSHOT_MISSING
        (shown,) = refusal.evidence["candidates"]
        assert (shown["snapshot_id"], shown["name"], shown["state"]) == (
            CANDIDATE,
            "multi-test-failover-pgtest1",
            "BackedUp",
        )
        assert (shown["created"], shown["would_pass"]) == (SNAPSHOT_AT.isoformat(), True)
        assert refusal.next_step.endswith(f"oma cleanup pgtest1 --snapshot {volume_id(1)}={CANDIDATE} --reason WHY")

    def test_one_command_names_all_that_are_missing(self) -> None:
        first = candidate(0, id="candidate-0")
        refusals = judge(build(snapshots=(), own_snapshots=(first, candidate())))
        assert [refusal.code for refusal in refusals] == [Code.SNAPSHOT_MISSING] * 2
        command = f"--snapshot {volume_id(0)}=candidate-0 --snapshot {volume_id(1)}={CANDIDATE} --reason WHY"
        assert all(refusal.next_step.endswith(command) for refusal in refusals)

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"state": "Error"}, "is Error, not BackedUp"),
            ({"created": FAILED_OVER_AT - timedelta(days=1)}, "before the oldest failover"),
            ({"size_bytes": 512}, "a revert would resize it"),
        ],
    )
    def test_one_that_would_not_is_not_offered(self, changes: dict[str, Any], problem: str) -> None:
        refusal = only(without(1, candidate(**changes)))
        (shown,) = refusal.evidence["candidates"]
        assert shown["would_pass"] is False
        assert problem in shown["problems"][0]
        assert problem in refusal.next_step
        assert "--snapshot" not in refusal.next_step

    def test_one_before_a_replication_would_not_pass(self) -> None:
        later = make.replication(id="repl-2", started_at=SNAPSHOT_AT + timedelta(seconds=1), completed_at=None)
        evidence = changed_records(without(1, candidate()), replications=(later,))
        (found,) = list_candidates(evidence, make.cloud_volume(1))
        assert "Replication repl-2 started" in found.problems[0]

    def test_none_is_used_that_nobody_named(self) -> None:
        assert choose_snapshot(without(1, candidate()), make.cloud_volume(1)).snapshot is None

    def test_the_unused_are_left_and_told(self) -> None:
        younger = candidate(created=SNAPSHOT_AT + timedelta(minutes=5))
        plan = build_plan(build(own_snapshots=(make.snapshot(1), younger)))
        assert CANDIDATE not in {action.target.snapshot_id for action in plan.actions}
        assert any(CANDIDATE in risk and "left as it is" in risk for risk in plan.risks)


class TestNamedByAPerson:
    def test_it_is_used_deleted_and_told(self) -> None:
        evidence = named(without(1, candidate()), candidate())
        assert judge(evidence) == ()
        plan = build_plan(evidence)
        assert plan.get_volume(volume_id(1)).snapshot_id == CANDIDATE
        kinds = [action.kind.value for action in plan.actions if action.target.snapshot_id == CANDIDATE]
        assert kinds == ["revert_snapshot", "delete_snapshot"]
        assert f"Snapshot {CANDIDATE} of disk-1 passed by snapshots: {REASON}" in plan.observed
        assert not any(CANDIDATE in risk for risk in plan.risks)

    def test_it_replaces_the_tracked_one_of_its_volume_only(self) -> None:
        twin = SnapshotFacts(volume_id(1), CANDIDATE, ("device_mappings",), candidate())
        evidence = build(snapshots=(make.tracked(0), make.tracked(1), twin))
        assert only(evidence).code is Code.SNAPSHOT_MISMATCH
        plan = build_plan(named(evidence, candidate()))
        assert plan.get_volume(volume_id(1)).snapshot_id == CANDIDATE
        assert plan.get_volume(volume_id(0)).snapshot_id == snapshot_id(0)

    def test_one_that_is_not_listed_is_missing(self) -> None:
        refusal = only(named(build()))
        assert refusal.code is Code.SNAPSHOT_MISSING
        assert refusal.sentence == f"CloudStack does not list the snapshot {CANDIDATE} that was named for disk-1."

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"volume_id": FOREIGN}, f"but CloudStack shows it on volume {FOREIGN}."),
            ({"state": "BackingUp"}, "is BackingUp, not BackedUp."),
            ({"created": FAILED_OVER_AT - timedelta(days=1)}, "before the oldest failover"),
            ({"size_bytes": 512}, "a revert would resize it."),
            ({"revertable": False}, "can't be reverted to."),
        ],
    )
    def test_one_that_does_not_pass_is_a_mismatch_and_no_other_takes_its_place(
        self, changes: dict[str, Any], words: str
    ) -> None:
        refusal = only(named(build(), candidate(**changes)))
        assert refusal.code is Code.SNAPSHOT_MISMATCH
        assert words in refusal.sentence
        assert refusal.evidence["named"]["snapshot_id"] == CANDIDATE

    def test_the_word_passes_no_replication(self) -> None:
        later = make.replication(id="repl-2", completed_at=SNAPSHOT_AT + timedelta(seconds=1))
        evidence = changed_records(named(without(1, candidate()), candidate()), replications=(later,))
        assert {refusal.code for refusal in judge(evidence)} >= {Code.REPLICATED_SINCE_SNAPSHOT}

    def test_nobody_said_whether_it_is_there(self) -> None:
        evidence = replace(named(build()), named_snapshots=unanswered("the named snapshots"))
        refusal = only(evidence)
        assert refusal.code is Code.STATE_UNKNOWN
        assert "the named snapshots" in refusal.sentence

    def test_one_for_a_volume_that_needs_no_revert_is_not_used_and_left(self) -> None:
        evidence = changed_records(
            build(volumes=(make.at_home(0), make.at_home(1)), devices=make.scan(0, 1), own_snapshots=(candidate(),)),
            joblog=(make.joblog(step_names=()),),
        )
        plan = build_plan(named(evidence, candidate()))
        assert f"Snapshot {CANDIDATE} was named for disk-1, which needs no revert; it is not used." in plan.observed
        assert any(CANDIDATE in risk for risk in plan.risks)
        assert only(named(evidence, candidate(volume_id=FOREIGN))).code is Code.SNAPSHOT_MISMATCH
        assert only(named(evidence)).code is Code.SNAPSHOT_MISSING


class TestARollbackThatDied:
    """Status `reverting`, one snapshot deleted already: which bytes its volume has can't be proven."""

    def _evidence(self, *volumes: Any, steps: tuple[str, ...] = ("volume-attachment",)) -> Evidence:
        evidence = build(
            volumes=volumes,
            devices=make.scan(*(number for number, facts in enumerate(volumes) if facts.on_oma is True)),
            snapshots=(make.tracked(0, cloud=None), make.tracked(1)),
        )
        dead = make.failover(status="reverting")
        return changed_records(evidence, failovers=(dead,), joblog=(make.joblog(status="failed", step_names=steps),))

    @pytest.mark.parametrize("first", [make.on_test_vm(0), make.detached(0), make.at_home(0)])
    def test_its_volume_has_no_usable_snapshot_wherever_it_is(self, first: Any) -> None:
        refusal = only(self._evidence(first, make.on_test_vm(1)))
        assert refusal.code is Code.SNAPSHOT_MISSING
        assert refusal.evidence["volume_id"] == volume_id(0)
        assert f"CloudStack no longer lists {snapshot_id(0)}." in refusal.sentence

    def test_unless_it_needs_none(self) -> None:
        """It hangs on the OMA since before the failover began; the other one left and goes back."""
        home = make.at_home(0)
        assert isinstance(home.cloud, CloudVolume)
        stayed = replace(home, cloud=replace(home.cloud, attached_at=FAILED_OVER_AT - timedelta(hours=1)))
        evidence = self._evidence(stayed, make.on_test_vm(1))
        assert judge(evidence) == ()
        plan = build_plan(evidence)
        assert [volume.needs_revert for volume in plan.volumes] == [False, True]
        assert "it never left the OMA: CloudStack shows it attached since" in plan.volumes[0].revert_reason
