"""createSnapshot, revertSnapshot and deleteSnapshot."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ossea.simulator.model import ContentReverted, CopyStarted, RevertStarted, SnapshotErased
from tests.unit.simulator.cloud import MIB, OMA, S1, V1, V2, VM, Cloud

REVERT_REFUSED: list[tuple[str, Callable[[Cloud], object], int, str]] = [
    ("volume busy", lambda c: c.set_volume(V1, state="Snapshotting"), 431, "The volume is not in Ready state."),
    (
        "attached to a running VM",
        lambda c: c.put(V1, OMA),
        431,
        "The VM the specified disk is attached to is not in the shutdown state.",
    ),
    (
        "VM snapshots",
        lambda c: c.put(V1, VM).add_vm_snapshot(VM),
        431,
        "Unable to revert snapshot for VM, please remove VM snapshots before reverting VM from snapshot",
    ),
    ("deleted", lambda c: c.done("deleteSnapshot", id=S1), 431, "No such snapshot"),
    ("a raw disk", lambda c: c.set_volume(V1, format="RAW"), 530, "Failed to revert snapshot"),
]


@pytest.mark.parametrize(
    ("before", "code", "text"), [row[1:] for row in REVERT_REFUSED], ids=[row[0] for row in REVERT_REFUSED]
)
def test_revert_is_refused_inside_the_job(before: Callable[[Cloud], object], code: int, text: str) -> None:
    cloud = Cloud()
    before(cloud)
    assert cloud.refusal("revertSnapshot", id=S1) == (code, text)
    assert not any(isinstance(effect, RevertStarted) for effect in cloud.effects)


def test_revert_goes_over_its_time_and_sets_the_size() -> None:
    cloud = Cloud()
    cloud.set_volume(V1, size_bytes=2 * MIB)
    job = cloud.start("revertSnapshot", id=S1)
    cloud.pass_time(1)
    assert cloud.volume()["state"] == "RevertSnapshotting"
    assert "jobid" not in cloud.volume()
    assert cloud.snapshot()["jobid"] == job
    cloud.pass_time(4)
    assert cloud.job(job)["jobstatus"] == 1
    assert (cloud.volume()["state"], cloud.volume()["size"]) == ("Ready", MIB)
    started, reverted = cloud.effects
    assert isinstance(started, RevertStarted)
    assert isinstance(reverted, ContentReverted)
    assert started.ends_at == started.at + 5
    assert (reverted.fraction, reverted.size_bytes) == (1.0, MIB)


def test_revert_is_allowed_on_a_stopped_vm_and_in_any_state_of_the_snapshot() -> None:
    cloud = Cloud()
    cloud.put(V1, VM)
    cloud.set_snapshot(S1, state="Destroying")
    cloud.done("revertSnapshot", id=S1)


def test_a_row_that_names_the_wrong_volume_overwrites_that_one() -> None:
    cloud = Cloud()
    other = cloud.model.seed(cloud.now, volumes=[{"name": "foreign", "size_bytes": MIB}])["volumes"][0]
    cloud.set_snapshot(S1, volume_id=other)
    cloud.done("revertSnapshot", id=S1)
    assert [e.volume_id for e in cloud.effects if isinstance(e, ContentReverted)] == [other]


def test_a_failed_revert_leaves_the_volume_ready_and_half_overwritten() -> None:
    cloud = Cloud()
    cloud.fault("revertSnapshot", "job_fail", errorcode=530, errortext="qemu-img failed", fraction=0.25)
    assert cloud.refusal("revertSnapshot", id=S1) == (530, "qemu-img failed")
    assert cloud.volume()["state"] == "Ready"
    assert [e.fraction for e in cloud.effects if isinstance(e, ContentReverted)] == [0.25]


def test_a_revert_refused_with_431_changes_nothing() -> None:
    cloud = Cloud()
    cloud.fault("revertSnapshot", "job_fail", errorcode=431, errortext="no")
    assert cloud.refusal("revertSnapshot", id=S1) == (431, "no")
    assert cloud.effects == []


def test_reverts_and_deletes_stand_in_no_queue() -> None:
    cloud = Cloud()
    cloud.put(V1, VM)
    other = cloud.done("createSnapshot", volumeid=V1)["snapshot"]["id"]
    cloud.start("stopVirtualMachine", id=VM)
    cloud.start("revertSnapshot", id=S1)
    deleting = cloud.start("deleteSnapshot", id=other)
    cloud.pass_time(2)
    assert cloud.job(deleting)["jobstatus"] == 1
    assert cloud.volume()["state"] == "RevertSnapshotting"


def test_create_snapshot_walks_its_states() -> None:
    cloud = Cloud()
    answer = cloud.call("createSnapshot", volumeid=V1, name="multi-test-failover-1")
    assert set(answer) == {"id", "jobid"}
    assert cloud.volume()["state"] == "Snapshotting"
    assert cloud.snapshot(answer["id"])["state"] == "Creating"
    cloud.pass_time(4.9)
    assert cloud.snapshot(answer["id"])["state"] == "BackingUp"
    cloud.pass_time(0.1)
    snapshot = cloud.snapshot(answer["id"])
    assert (snapshot["state"], snapshot["volumeid"], snapshot["revertable"]) == ("BackedUp", V1, True)
    assert cloud.volume()["state"] == "Ready"
    assert [type(effect) for effect in cloud.effects] == [CopyStarted]


def test_a_snapshot_of_an_attached_volume_waits_in_its_vms_queue() -> None:
    cloud = Cloud()
    cloud.put(V1, VM)
    cloud.put(V2, VM, 0)
    cloud.start("startVirtualMachine", id=VM)
    waiting = cloud.call("createSnapshot", volumeid=V1)
    cloud.pass_time(0)
    assert cloud.snapshot(waiting["id"])["state"] == "Allocated"


def test_a_failed_snapshot_is_in_error_and_can_be_deleted() -> None:
    cloud = Cloud()
    cloud.fault("createSnapshot", "job_fail")
    answer = cloud.call("createSnapshot", volumeid=V1)
    cloud.pass_time(10)
    assert cloud.snapshot(answer["id"])["state"] == "Error"
    assert cloud.refusal("revertSnapshot", id=answer["id"])[0] == 530
    cloud.done("deleteSnapshot", id=answer["id"])


def test_a_snapshot_of_a_busy_volume_is_refused_by_the_call() -> None:
    cloud = Cloud()
    cloud.set_volume(V1, state="Attaching")
    error = cloud.error("createSnapshot", volumeid=V1)
    assert error.errorcode == 431
    assert error.text == f"VolumeId: {V1} is not in Ready state but Attaching. Cannot take snapshot."


def test_delete_takes_the_bytes_and_the_row_out_of_the_lists() -> None:
    cloud = Cloud()
    assert cloud.done("deleteSnapshot", id=S1) == {"success": True}
    assert cloud.call("listSnapshots", volumeid=V1) == {}
    assert [type(effect) for effect in cloud.effects] == [SnapshotErased]
    # A removed entity passes the parameter check and fails later.
    assert cloud.refusal("deleteSnapshot", id=S1)[0] == 431


@pytest.mark.parametrize("state", ["Creating", "BackingUp", "CreatedOnPrimary"])
def test_a_snapshot_in_the_making_is_not_deleted(state: str) -> None:
    cloud = Cloud()
    cloud.set_snapshot(S1, state=state)
    assert cloud.refusal("deleteSnapshot", id=S1) == (
        431,
        f"Can't delete snapshotshot {S1} due to it is in {state} Status",
    )
