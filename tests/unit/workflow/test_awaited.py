"""A disk whose content was given up needs no revert; every rule but those about its snapshot holds for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from oma.domain.actions import ActionKind
from oma.domain.errors import Code
from oma.domain.evidence import Evidence
from oma.domain.jobs import CleanupRequest
from oma.domain.records import ChangeIdRecord, VmContext
from oma.domain.states import Replica
from oma.domain.verdict import of_parked, of_plan, of_undone
from oma.domain.whole_copies import SYNC_TYPE
from oma.domain.words import Words
from oma.domain.world import CloudVm
from oma.workflow.guards import judge
from oma.workflow.planning import build_plan
from oma.workflow.refusing import build_refused
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import NOW, OMA, TEST_VM

pytestmark = pytest.mark.rule("5-awaited")
SAID_AT = NOW - timedelta(minutes=30)


def demand(number: int, **changes: Any) -> ChangeIdRecord:
    return replace(ChangeIdRecord(f"disk-{2000 + number}", None, SYNC_TYPE, SAID_AT, "repl-1"), **changes)


def stored(number: int) -> ChangeIdRecord:
    """By a replication after the word."""
    return demand(number, change_id="change-2", sync_type="full", stored_at=SAID_AT + timedelta(minutes=5))


def given_up(*, records: dict[str, Any] | None = None, **changes: Any) -> Evidence:
    """The dead test failover; its run was given up for good after it had deleted the snapshots."""
    values: dict[str, Any] = {
        "disks": tuple(make.disk_row(number, disk_change_id="") for number in range(2)),
        "change_ids": (demand(0), demand(1)),
        **(records or {}),
    }
    gone = tuple(make.tracked(number, cloud=None) for number in range(2))
    return make.build(records=make.records(**values), **{"snapshots": gone, **changes})


def codes(evidence: Evidence) -> list[Code]:
    return [refusal.code for refusal in judge(evidence)]


def kinds(evidence: Evidence) -> list[ActionKind]:
    return [action.kind for action in build_plan(evidence).changes]


def test_it_is_brought_home_without_a_snapshot() -> None:
    evidence = given_up()
    assert codes(evidence) == []
    plan = build_plan(evidence)
    assert plan.awaiting == ("disk-0", "disk-1")
    assert not any(volume.needs_revert for volume in plan.volumes)
    assert kinds(evidence) == [
        ActionKind.DETACH_VOLUME,
        ActionKind.DETACH_VOLUME,
        ActionKind.ATTACH_VOLUME,
        ActionKind.ATTACH_VOLUME,
        ActionKind.DESTROY_VM,
        ActionKind.RESET_RECORDS,
    ]
    assert any("don't fail over" in risk for risk in plan.risks)


def test_of_a_vm_that_was_never_replicated_its_last_summary_tells() -> None:
    summary: dict[str, object] = {"replica": "resync_required", "ended_at": SAID_AT.isoformat()}
    context = VmContext("ctx-1", "pgtest1", "vc-1", "cleanup_required", None, 1, last_operation_summary=summary)
    untold = {"replications": (), "change_ids": ()}
    assert codes(given_up(records={**untold, "context": context})) == []
    assert Code.SNAPSHOT_MISSING in codes(given_up(records=untold))


@pytest.mark.parametrize(
    "records",
    [
        {"disks": tuple(make.disk_row(number, disk_change_id="change-2") for number in range(2))},
        {"change_ids": ()},
        {"change_ids": (stored(0), stored(1), demand(0), demand(1))},
        {"change_ids": (demand(0, stored_at=None), demand(1, stored_at=None))},
        {"replications": (make.replication(id="repl-2", started_at=NOW - timedelta(minutes=20)),)},
    ],
    ids=["a change id", "no word", "a change id in its history", "an undated word", "a completed replication"],
)
def test_an_empty_change_id_alone_or_an_old_word_gives_nothing_up(records: dict[str, Any]) -> None:
    evidence = given_up(records=records)
    assert codes(evidence) == [Code.SNAPSHOT_MISSING, Code.SNAPSHOT_MISSING]


def test_a_disk_beside_it_is_reverted_as_ever() -> None:
    one = {"change_ids": (demand(0),)}
    (refusal,) = judge(given_up(records=one))
    assert (refusal.code, "disk-1" in refusal.sentence) == (Code.SNAPSHOT_MISSING, True)
    plan = build_plan(given_up(records=one, snapshots=(make.tracked(0, cloud=None), make.tracked(1))))
    assert [volume.needs_revert for volume in plan.volumes] == [False, True]
    (delete,) = [action for action in plan.changes if action.kind is ActionKind.DELETE_SNAPSHOT]
    assert delete.sentence.startswith("Keep snapshot")


def foreign() -> Evidence:
    elsewhere = make.on_test_vm(0, vm_id=make.FOREIGN_VM, vm_name="somebody-elses")
    return given_up(volumes=(elsewhere, make.on_test_vm(1)))


def held(*holders: Any) -> Evidence:
    at_home = make.at_home(0, holders=make.held_by(0, *holders))
    return given_up(volumes=(at_home, make.at_home(1)), devices=make.scan(0, 1))


def with_test_vm(state: str) -> Evidence:
    vms = (CloudVm(OMA, "oma", "Running"), CloudVm(TEST_VM, "pgtest1-test", state))
    return given_up(volumes=(make.detached(0), make.detached(1)), vms=vms)


@pytest.mark.parametrize(
    ("evidence", "code"),
    [
        (foreign(), Code.VOLUME_ON_FOREIGN_VM),
        (held(make.unknown_process()), Code.DEVICE_IN_USE),
        (held(make.injection()), Code.DEVICE_IN_USE),
        (given_up(volumes=(make.detached(0, on_oma=True), make.detached(1))), Code.STATE_UNKNOWN),
        (with_test_vm("Error"), Code.STATE_UNKNOWN),
        (given_up(unanswered=(make.unanswered(),)), Code.STATE_UNKNOWN),
    ],
    ids=["a foreign VM", "an unknown holder", "an injection", "a device that is shown", "a VM in Error", "silence"],
)
def test_no_other_rule_is_weakened(evidence: Evidence, code: Code) -> None:
    assert code in codes(evidence)


def test_an_injection_on_it_is_ended_by_the_same_word_as_ever() -> None:
    evidence = replace(held(make.injection()), words=Words(end_holders=True, reason="it hangs"))
    assert codes(evidence) == []
    assert ActionKind.END_HOLDER in kinds(evidence)
    assert ActionKind.DETACH_VOLUME not in kinds(evidence)


def test_one_whose_device_does_not_show_is_taken_off_and_attached_anew() -> None:
    evidence = given_up(volumes=(make.at_home(0, on_oma=False), make.at_home(1)), devices=make.scan(1))
    plan = build_plan(evidence)
    moved = [(one.kind, one.target.volume_name) for one in plan.changes if one.target.volume_name]
    assert moved == [
        (ActionKind.DETACH_VOLUME, "disk-0"),
        (ActionKind.ATTACH_VOLUME, "disk-0"),
        (ActionKind.ATTACH_VOLUME, "disk-1"),
    ]


def test_nothing_that_is_said_of_it_calls_the_replica_good() -> None:
    plan = build_plan(given_up())
    said = [
        of_plan(plan, CleanupRequest("pgtest1")),
        of_parked(plan, (), ["attach_volume"], "j"),
        of_undone(plan, (), (), ()),
    ]
    assert {one.replica for one in said} == {Replica.RESYNC_REQUIRED}
    assert all("good;" not in one.next and "content is good" not in one.next for one in said)
    refused = build_refused(foreign(), judge(foreign()))
    assert refused.fields["replica"] == Replica.RESYNC_REQUIRED.value
