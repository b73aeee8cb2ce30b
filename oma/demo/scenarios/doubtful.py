"""VMs whose snapshots, replications or records leave a doubt: refused, each with the code of its reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from oma.demo.scenarios.refused import ON_TEST_VM, Refused, insist
from oma.demo.story import (
    ATTACHMENT,
    CREATION,
    INJECTION,
    MIB,
    POWER_OFF,
    RETIRED,
    SNAPSHOT,
    DiskStory,
    Place,
    ReplicationStory,
    SnapshotStory,
    Tracking,
    VmStory,
)

NO_SNAPSHOT: Final = DiskStory(snapshots=())
GONE: Final = SnapshotStory(listed=False)


def _with_snapshot(*snapshots: SnapshotStory) -> tuple[DiskStory, ...]:
    return (DiskStory(snapshots=snapshots), ON_TEST_VM)


SNAPSHOTS: Final = (
    Refused(
        "a volume without a snapshot that was on the test VM",
        VmStory("partial-snapshots", (ON_TEST_VM, NO_SNAPSHOT), test_vm="Stopped"),
        "409 snapshot_missing",
        "partial-snapshots-disk-1",
    ),
    Refused(
        "two snapshots that differ",
        VmStory(
            "two-snapshots",
            _with_snapshot(SnapshotStory(), SnapshotStory(Tracking.MAPPINGS, timedelta(minutes=3))),
            test_vm="Stopped",
        ),
        "409 snapshot_mismatch",
        "two-snapshots-disk-0",
    ),
    Refused(
        "a snapshot older than the last failover",
        VmStory("old-snapshot", _with_snapshot(SnapshotStory(after=-timedelta(minutes=20))), test_vm="Stopped"),
        "409 snapshot_mismatch",
        "before",
    ),
    Refused(
        "a snapshot in the wrong state",
        VmStory("half-snapshot", _with_snapshot(SnapshotStory(state="CreatedOnPrimary")), test_vm="Stopped"),
        "409 snapshot_mismatch",
        "CreatedOnPrimary",
    ),
    Refused(
        "a snapshot of another size",
        VmStory("grown-disk", _with_snapshot(SnapshotStory(size_bytes=MIB // 2)), test_vm="Stopped"),
        "409 snapshot_mismatch",
        "bytes",
    ),
    Refused(
        "a rollback that died after it deleted one snapshot",
        VmStory(
            "dead-rollback",
            (DiskStory(Place.OMA, snapshots=(GONE,)), ON_TEST_VM),
            context_status="failed_over_test",
            failover_status="reverting",
            joblog_status="failed",
            test_vm="Stopped",
        ),
        "409 snapshot_missing",
        "dead-rollback-disk-0",
    ),
    Refused(
        "a replication that finished since the snapshot",
        VmStory("replicated-since", (ON_TEST_VM,), test_vm="Stopped", replications=(ReplicationStory(),)),
        "409 replicated_since_snapshot",
        "after the snapshot",
    ),
    Refused(
        "a replication since the snapshot that runs",
        VmStory(
            "replicating",
            (ON_TEST_VM,),
            test_vm="Stopped",
            replications=(ReplicationStory("replicating", ended=None),),
        ),
        "409 operation_in_progress",
        "is replicating",
    ),
    Refused(
        "only a change id stored since the snapshot",
        VmStory("stored-change-id", (ON_TEST_VM,), test_vm="Stopped", stored_change_id=True),
        "409 replicated_since_snapshot",
        "change id",
    ),
)

RECORDS: Final = (
    Refused("a context with no volumes", VmStory("no-volumes", ()), "409 state_unknown", "no row in vm_disks"),
    Refused(
        "fewer volume rows than disks",
        VmStory("lost-row", (ON_TEST_VM, ON_TEST_VM), test_vm="Stopped", rows_missing=1),
        "409 state_unknown",
        "disk-2001",
    ),
    Refused(
        "a volume that two contexts claim",
        VmStory("claimed-twice", (ON_TEST_VM,), test_vm="Stopped", claimed_by="somebody-else"),
        "409 state_unknown",
        "another VM",
    ),
    Refused(
        "an OMA id that points to last year's appliance",
        VmStory("last-year", (ON_TEST_VM, DiskStory(Place.OMA)), test_vm="Stopped", config=RETIRED),
        "409 state_unknown",
        "retired-oma",
    ),
    Refused(
        "a live failover whose VM was started, then stopped",
        VmStory(
            "live-stopped",
            (ON_TEST_VM,),
            job_type="live",
            context_status="failed_over_live",
            steps=(POWER_OFF, SNAPSHOT, INJECTION, CREATION, ATTACHMENT),
            joblog_status="failed",
            test_vm="Stopped",
            was_started=True,
        ),
        "409 live_failover",
        "was failed over for good",
        words=insist,
    ),
)
