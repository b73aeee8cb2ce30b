"""6-safety 3: a held device is not detached; only a person ends an injection, and nothing else is ever ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.holders import INJECTION, NBD_CLIENT, NBD_SERVER, DeviceHolder, DeviceHolders
from oma.domain.words import Words
from oma.domain.world import CloudVm, Unanswered, VolumeFacts
from oma.workflow.guards.devices import device_agrees, device_in_use
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import OMA, build, changed_records, volume_id

pytestmark = pytest.mark.rule("3-held", "3-unknown", "3-old-daemon")

END = Words(end_holders=True, reason="hung since midnight")
COMMAND = "oma cleanup pgtest1 --end-holders --reason 'the injection hangs'"
LOOP = DeviceHolder("loop", "loop3")
OLD_DAEMON = Unanswered(
    f"who holds {volume_id(0)}", "Volume Daemon", "not_found: it has no route for holders", "not_found"
)


def on_oma(*holders: DeviceHolder, unread: tuple[str, ...] = (), **changes: Any) -> Evidence:
    """The first volume still hangs on the OMA and has to be reverted; these hold its device."""
    held = make.held_by(0, *holders, unread=unread)
    return with_answer(held, **changes)


def with_answer(answer: DeviceHolders | Unanswered | None, **changes: Any) -> Evidence:
    first = replace(make.at_home(0, mode="failover"), holders=answer)
    values: dict[str, Any] = {"volumes": (first, make.on_test_vm(1)), "devices": make.scan(0)}
    return build(**{**values, **changes})


def only(evidence: Evidence) -> Refusal:
    (refusal,) = device_in_use(evidence)
    return refusal


def test_a_device_that_nobody_holds_may_go() -> None:
    assert not list(device_in_use(on_oma()))


def test_a_hung_injection_is_named_with_pid_time_and_the_command_that_ends_it() -> None:
    refusal = only(on_oma(make.injection()))
    assert refusal.code is Code.DEVICE_IN_USE
    assert refusal.sentence == (
        "The device of disk-0 is held on the OMA by process 4711 (virt-v2v-in-place -i disk) since "
        "2026-03-01T01:00:00+00:00; it is not taken away."
    )
    assert refusal.next_step.endswith(COMMAND)
    (told,) = refusal.evidence["holders"]
    assert (told["pid"], told["start_ticks"], told["role"], told["endable"]) == (4711, 100, INJECTION, True)
    assert told["tree"] == {"pid": 4700, "start_ticks": 90}


def test_end_holders_passes_an_injection() -> None:
    assert not list(device_in_use(on_oma(make.injection(), make.injection(4712), words=END)))


def test_a_name_is_quoted_in_the_command() -> None:
    evidence = on_oma(make.injection())
    odd = changed_records(evidence, context=replace(evidence.records.context, vm_name="it's"))
    assert """oma cleanup 'it'"'"'s' --end-holders""" in only(odd).next_step


@pytest.mark.parametrize(
    ("holder", "advice"),
    [
        (DeviceHolder("mount", "/mnt/a b", namespace=4026532281), "umount '/mnt/a b' (mount namespace 4026532281"),
        (LOOP, "losetup -d /dev/loop3"),
        (DeviceHolder("device_mapper", "dm-2"), "dmsetup remove /dev/dm-2"),
        (DeviceHolder("md", "md0"), "mdadm --stop /dev/md0"),
        (DeviceHolder("swap", "/dev/vdb2"), "swapoff /dev/vdb2"),
        (DeviceHolder(NBD_CLIENT, "10.0.0.5:4711"), "let the replication of 10.0.0.5:4711 end, or stop it"),
        (make.unknown_process(), "let process 666 end or end it yourself (ps -fp 666)"),
        (make.unknown_process(role=NBD_SERVER), "an NBD server is never ended here"),
        (DeviceHolder("bcache", "bcache0"), "find out what bcache bcache0 is and close it"),
    ],
    ids=lambda value: value.kind if isinstance(value, DeviceHolder) else "",
)
@pytest.mark.parametrize("words", [Words(), END], ids=["silent", "end_holders"])
def test_nothing_but_an_injection_is_ended_and_what_to_do_instead_is_told(
    holder: DeviceHolder, advice: str, words: Words
) -> None:
    refusal = only(on_oma(holder, words=words))
    assert refusal.code is Code.DEVICE_IN_USE
    assert advice in refusal.next_step
    assert "--end-holders" not in refusal.next_step


@pytest.mark.parametrize(
    "holder",
    [
        replace(make.injection(), role="unknown"),
        replace(make.injection(), role=NBD_SERVER),
        replace(make.injection(), endable=False, why_not="its process tree also holds virtio-1"),
        replace(make.injection(), tree=None),
    ],
    ids=["unknown", "nbd_server", "not endable", "no tree"],
)
def test_end_holders_passes_nothing_that_the_volume_daemon_would_refuse(holder: DeviceHolder) -> None:
    assert only(on_oma(holder, words=END)).code is Code.DEVICE_IN_USE


def test_beside_an_injection_what_else_holds_the_device_has_to_be_closed_first() -> None:
    refusal = only(on_oma(make.injection(), LOOP, words=END))
    assert "held on the OMA by loop loop3;" in refusal.sentence
    assert refusal.next_step == (
        "Close what holds it, then ask again: losetup -d /dev/loop3. The driver injection can then be ended: "
        "oma cleanup pgtest1 --end-holders --reason 'hung since midnight'"
    )
    assert len(refusal.evidence["holders"]) == 2


def test_what_holds_another_device_of_the_vm_has_to_be_closed_first_too() -> None:
    first = make.at_home(0, mode="failover", holders=make.held_by(0, make.injection()))
    second = make.at_home(1, mode="failover", holders=make.held_by(1, LOOP))
    injected, looped = device_in_use(build(volumes=(first, second), devices=make.scan(0, 1)))
    assert injected.next_step.startswith("Close what holds the VM's other devices first; then")
    assert "losetup -d /dev/loop3" in looped.next_step


@pytest.mark.parametrize("words", [Words(), END], ids=["silent", "end_holders"])
def test_a_scan_that_could_not_see_everything_says_unknown_never_none(words: Words) -> None:
    refusal = only(on_oma(unread=("process 1: Permission denied",), words=words))
    assert refusal.code is Code.STATE_UNKNOWN
    assert refusal.sentence == (
        "Who holds the device of disk-0 on the OMA can't be told: the scan could not see everything: process 1: "
        "Permission denied."
    )
    assert refusal.evidence["unread"] == ["process 1: Permission denied"]


def test_a_scan_that_found_an_injection_but_could_not_see_everything_ends_nothing() -> None:
    refusal = only(on_oma(make.injection(), unread=("process 1: Permission denied",), words=END))
    assert refusal.code is Code.STATE_UNKNOWN
    assert [one["pid"] for one in refusal.evidence["seen"]] == [4711]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (OLD_DAEMON, "this Volume Daemon is too old to tell (it has no route for it)"),
        (Unanswered("who holds it", "Volume Daemon", "no answer within 20 s"), "no answer within 20 s"),
        (None, "its device came or went while it was looked at"),
    ],
    ids=["old daemon", "silent", "gone meanwhile"],
)
def test_a_missing_answer_is_never_none(answer: Unanswered | None, why: str) -> None:
    refusal = only(with_answer(answer))
    assert refusal.code is Code.STATE_UNKNOWN
    assert why in refusal.sentence


def test_an_injection_that_never_reported_its_end_is_told_where_the_scan_cannot_tell() -> None:
    log = make.joblog(running_step_names=("virtio-driver-injection",))
    refusal = only(changed_records(with_answer(OLD_DAEMON), joblog=(log,)))
    assert refusal.sentence.endswith("The driver injection of failover failover-1 never reported its end.")


def test_an_injection_that_never_reported_its_end_is_dead_where_nobody_holds_the_device() -> None:
    log = make.joblog(running_step_names=("virtio-driver-injection",))
    assert not list(device_in_use(changed_records(on_oma(), joblog=(log,))))


def untouched(*holders: DeviceHolder, unread: tuple[str, ...] = (), **changes: Any) -> Evidence:
    """Everything is home and nothing needs a revert."""
    first = make.at_home(0, holders=make.held_by(0, *holders, unread=unread))
    return make.nothing_left(volumes=(first, make.at_home(1)), **changes)


def test_a_held_device_that_stays_where_it_is_refuses_nothing() -> None:
    assert not list(device_in_use(untouched(DeviceHolder(NBD_CLIENT, "10.0.0.5:4711"))))
    assert not list(device_in_use(untouched(unread=("process 1: Permission denied",))))


def test_an_unknown_holder_counts_where_a_replication_never_ended() -> None:
    evidence = untouched(unread=("process 1: Permission denied",))
    still_open = changed_records(evidence, replications=(make.replication(status="running"),))
    assert only(still_open).code is Code.STATE_UNKNOWN


def test_a_device_that_stays_though_cloudstack_shows_it_detached_is_told_with_its_holder() -> None:
    facts = VolumeFacts(volume_id(1), make.detached(1).cloud, None, on_oma=True, holders=make.held_by(1, LOOP))
    vms = (CloudVm(OMA, "oma", "Running"),)
    (refusal,) = device_agrees(build(volumes=(make.at_home(0), facts), devices=make.scan(0, 1), vms=vms))
    assert "the OMA still shows its device. It is held by loop loop3." in refusal.sentence
    assert [one["name"] for one in refusal.evidence["holders"]] == ["loop3"]
