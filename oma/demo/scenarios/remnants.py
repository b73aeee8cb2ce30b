"""VMs that are put right although their records tell little: by what CloudStack and the OMA show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import update
from sqlalchemy.engine import Connection

from database.tables import job_steps, job_tracking, log_events
from oma.demo.checks import faults_of_a_cleaned_vm
from oma.demo.ledger import last_call
from oma.demo.scenarios.base import Anywhere, OfOneStory, Result, result
from oma.demo.scenarios.cleaned import ON_OMA, ON_TEST_VM, Cleaned, success_faults
from oma.demo.scenarios.refused import ask_in_vain
from oma.demo.story import (
    INJECTION,
    POWER_OFF,
    SNAPSHOT,
    DiskStory,
    Place,
    SeededVm,
    SnapshotStory,
    Tracking,
    VmStory,
)
from oma.demo.world import World

LONG_AGO: Final = timedelta(hours=3)


@dataclass(frozen=True, slots=True)
class AliveThenDead(OfOneStory, Anywhere):
    """The same failover, the same `pending`: refused while its JobLog is written to, cleaned when that fell silent."""

    title: str
    story: VmStory
    expected: str = "409 operation_in_progress, then 200 ready"
    alone: bool = False

    async def play(self, world: World, vm: SeededVm) -> Result:
        stack = world.stack
        before = await last_call(stack)
        asked = await ask_in_vain(world, vm, "JobLog")
        await stack.door.write(lambda connection: _fall_silent(connection, vm, vm.last_sign_at - LONG_AGO))
        answer = await stack.operator.clean_up(vm.name)
        faults = asked.faults + success_faults(answer, vm)
        faults += await faults_of_a_cleaned_vm(world, vm, after_call=before)
        return result([asked.answer, answer], self.expected, faults)


def _fall_silent(connection: Connection, vm: SeededVm, at: datetime) -> None:
    """As if everything that the failover wrote had been written back then."""
    connection.execute(update(job_tracking).where(job_tracking.c.id == vm.failover_id).values(updated_at=at))
    connection.execute(update(log_events).where(log_events.c.job_id == vm.failover_id).values(ts=at))
    steps = update(job_steps).where(job_steps.c.job_id == vm.failover_id)
    connection.execute(steps.values(started_at=at))
    connection.execute(steps.where(job_steps.c.completed_at.is_not(None)).values(completed_at=at))


REMNANTS: Final = (
    Cleaned(
        "a test VM that was created and never recorded",
        VmStory(
            "unrecorded-vm",
            (ON_OMA, ON_OMA),
            steps=(SNAPSHOT, INJECTION, ("vm-creation", "failed")),
            joblog_status="failed",
            test_vm="Stopped",
            recorded=False,
            own_root=True,
        ),
        dry_run_says=("unrecorded-vm-test-",),
    ),
    Cleaned(
        "a VM with a test VM's name that was started: left alone",
        VmStory(
            "doubtful-vm",
            (ON_OMA, ON_OMA),
            steps=(SNAPSHOT, INJECTION, ("vm-creation", "failed")),
            joblog_status="failed",
            test_vm="Stopped",
            was_started=True,
            recorded=False,
            own_root=True,
        ),
        dry_run_says=("it was left alone: CloudStack's event log shows VM.START",),
        test_vm_state="Stopped",
    ),
    Cleaned(
        "a volume without a snapshot that never left the OMA",
        VmStory(
            "never-left",
            (
                DiskStory(Place.OMA, written=False),
                DiskStory(Place.OMA, snapshots=(), written=False),
            ),
            steps=(("multi-volume-snapshot", "failed"),),
            joblog_status="failed",
            test_vm=None,
        ),
        dry_run_says=("it never left the OMA",),
    ),
    Cleaned(
        "snapshots that only device_mappings knows",
        VmStory(
            "mapped-snapshots",
            (DiskStory(snapshots=(SnapshotStory(Tracking.MAPPINGS),)),) * 2,
            test_vm="Stopped",
        ),
    ),
    Cleaned(
        "a snapshot that only failover_jobs knows",
        VmStory("job-snapshot", (DiskStory(snapshots=(SnapshotStory(Tracking.FAILOVER),)),), test_vm="Stopped"),
    ),
    Cleaned(
        "a live failover that made no VM",
        VmStory(
            "live-without-vm",
            (ON_OMA, ON_OMA),
            job_type="live",
            context_status="failed_over_live",
            steps=(POWER_OFF, SNAPSHOT, ("virtio-driver-injection", "failed")),
            joblog_status="failed",
            test_vm=None,
        ),
        next_begins="the source VM was powered off by this failover; start it in vCenter",
    ),
    AliveThenDead(
        "a failover that says pending and is alive; the same and dead",
        VmStory("slow-failover", (ON_TEST_VM,), test_vm="Stopped", alive=True),
    ),
)
