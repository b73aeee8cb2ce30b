"""The words that only a person may say: how they are read, and what the VM's records make of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from oma.domain.errors import Code, OmaError
from oma.domain.records import FailoverRecord, VmContext, VmRecords, VolumeRecord
from oma.domain.spoken import LONGEST_REASON, read_snapshot_pair, read_words
from oma.domain.words import SILENT, Words
from oma.service.words import check_words

VM = "b3bb9310-1b59-4f62-97e8-cefffdfe3804"
VOLUME = "11111111-1111-4111-8111-111111111111"
SNAPSHOT = "22222222-2222-4222-8222-222222222222"
WHY = "agreed with the DR lead, ticket 4711"
CONTEXT = VmContext("ctx-1", "pgtest1", "vc-1", "failed_over_live", None, 1)


def refused(values: dict[str, Any], given: dict[str, Any] | None = None) -> OmaError:
    with pytest.raises(OmaError) as raised:
        read_words(values, given)
    assert raised.value.code is Code.INVALID_REQUEST
    assert raised.value.sentence.endswith((".", "…"))
    return raised.value


def test_nothing_said_is_silence() -> None:
    assert read_words({}) == SILENT
    assert read_words({"force": None, "reason": None, "snapshots": None, "end_test": False, "phases": ["x"]}) == SILENT


def test_words_come_with_their_reason() -> None:
    words = read_words({"snapshots": {VOLUME.upper(): SNAPSHOT}, "end_test": True, "reason": f"  {WHY} "})
    assert words == Words(end_test=True, snapshots=((VOLUME, SNAPSHOT),), reason=WHY)
    assert read_words({"resume": True}).spoken == ("resume",)
    assert read_words({"resume": True, "force": True, "reason": WHY}).spoken == ("force", "resume")
    live = read_words({"force": True, "destination_vm_id": VM, "reason": WHY})
    assert live.destination_vm_id == VM


@pytest.mark.parametrize("word", ["force", "end_test", "end_holders", "snapshots"])
@pytest.mark.parametrize(
    "reason", [{}, {"reason": None}, {"reason": ""}, {"reason": "  \u00a0 "}, {"reason": "\u200b"}]
)
def test_a_word_without_a_reason(word: str, reason: dict[str, Any]) -> None:
    value = {VOLUME: SNAPSHOT} if word == "snapshots" else True
    assert refused({word: value, **reason}).fields["field"] == "reason"


@pytest.mark.parametrize(
    "reason",
    [
        "x" * (LONGEST_REASON + 1),
        "x" * 100_000,
        "a\nb",
        "a\x00b",
        "a\x1b[31mb",
        "a\u202eb",
        "a\u2028b",
        7,
        ["why"],
        True,
    ],
)
def test_a_reason_that_does_not_fit(reason: Any) -> None:
    assert refused({"force": True, "reason": reason}).fields["field"] == "reason"


def test_the_longest_reason_fits() -> None:
    assert read_words({"force": True, "reason": "x" * LONGEST_REASON}).reason == "x" * LONGEST_REASON


def test_a_reason_needs_a_word() -> None:
    assert refused({"reason": WHY}).fields["field"] == "reason"
    assert refused({"reason": WHY, "force": False}).fields["field"] == "reason"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"force": True, "end_test": True}, "force"),
        ({"force": True, "end_holders": True}, "force"),
        ({"end_test": True, "end_holders": True}, "end_test"),
        ({"destination_vm_id": VM}, "destination_vm_id"),
        ({"destination_vm_id": VM, "end_test": True}, "destination_vm_id"),
        ({"resume": True, "end_test": True}, "end_test"),
        ({"resume": True, "snapshots": {VOLUME: SNAPSHOT}}, "snapshots"),
        ({"resume": True, "force": True, "destination_vm_id": VM}, "destination_vm_id"),
        ({"force": "yes"}, "force"),
        ({"force": 1}, "force"),
        ({"resume": "true"}, "resume"),
        ({"force": True, "destination_vm_id": "i-2-7-VM"}, "destination_vm_id"),
        ({"force": True, "destination_vm_id": UUID(VM).hex}, "destination_vm_id"),
        ({"force": True, "destination_vm_id": ""}, "destination_vm_id"),
        ({"force": True, "destination_vm_id": 7}, "destination_vm_id"),
        ({"snapshots": {}}, "snapshots"),
        ({"snapshots": [VOLUME]}, "snapshots"),
        ({"snapshots": {"disk": SNAPSHOT}}, "snapshots"),
        ({"snapshots": {VOLUME: None}}, "snapshots"),
        ({"snapshots": {VOLUME: "newest"}}, "snapshots"),
        ({"snapshots": {VM: SNAPSHOT, VM.upper(): VOLUME}}, "snapshots"),
        ({"snapshots": {VOLUME: SNAPSHOT, VM: SNAPSHOT}}, "snapshots"),
    ],
)
def test_contradictions_and_what_is_no_id(values: dict[str, Any], field: str) -> None:
    assert refused({**values, "reason": WHY}).fields["field"] == field


@pytest.mark.parametrize("given", [{"phases": ["x"]}, {"expect_plan": "0" * 64}, {"dry_run": True}])
def test_resume_makes_no_other_plan(given: dict[str, Any]) -> None:
    assert refused({"resume": True}, given).fields["field"] == next(iter(given))


def test_a_pair_of_the_command_line() -> None:
    assert read_snapshot_pair(f"{VOLUME} = {SNAPSHOT.upper()}") == (VOLUME, SNAPSHOT)
    for text in ("", VOLUME, f"{VOLUME}=", f"={SNAPSHOT}", f"{VOLUME}=a=b"):
        with pytest.raises(OmaError):
            read_snapshot_pair(text)


def records(*failovers: FailoverRecord, failed: bool = False) -> VmRecords:
    volume = VolumeRecord(1, "ctx-1", VOLUME, "disk 0", 10, 1, "attached")
    return VmRecords(CONTEXT, (volume,), (), (), failovers, (), (), (), last_run_failed=failed)


def live(vm_id: str | None, *, number: int = 1, job_type: str = "live", status: str = "pending") -> FailoverRecord:
    return FailoverRecord(number, "ctx-1", f"failover-{number}", job_type, status, destination_vm_id=vm_id)


def complaint(known: VmRecords, words: Words) -> OmaError:
    with pytest.raises(OmaError) as raised:
        check_words(known, words)
    assert raised.value.code is Code.INVALID_REQUEST
    return raised.value


FORCE = Words(force=True, reason=WHY)
EMPTY_IT = replace(FORCE, destination_vm_id=VM)


def test_force_wants_a_failed_run_or_the_vm_of_a_live_failover() -> None:
    assert complaint(records(), FORCE).fields["field"] == "force"
    check_words(records(failed=True), FORCE)
    check_words(records(live(VM)), EMPTY_IT)
    check_words(records(live(SNAPSHOT, number=2, job_type="test"), live(VM)), EMPTY_IT)
    check_words(records(), SILENT)


def test_the_right_vm_is_named() -> None:
    other = "33333333-3333-4333-8333-333333333333"
    error = complaint(records(live(other), live(VM, number=2, status="failed")), EMPTY_IT)
    assert (error.fields["field"], error.fields["allowed"]) == ("destination_vm_id", [other])
    assert "failover-2" in error.sentence
    assert other in error.sentence


@pytest.mark.parametrize(
    "known",
    [
        records(),
        records(live(None)),
        records(live(VM, job_type="test")),
        records(live(VM, job_type="test"), failed=True),
    ],
)
def test_a_vm_of_no_live_failover(known: VmRecords) -> None:
    assert complaint(known, EMPTY_IT).fields["field"] == "destination_vm_id"


def test_a_volume_of_another_vm() -> None:
    check_words(records(), Words(snapshots=((VOLUME, SNAPSHOT),), reason=WHY))
    error = complaint(records(), Words(snapshots=((VM, SNAPSHOT),), reason=WHY))
    assert (error.fields["field"], error.fields["allowed"]) == ("snapshots", [VOLUME])
    assert VM in error.sentence
