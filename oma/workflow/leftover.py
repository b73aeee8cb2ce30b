"""Which VM is this failover's own test VM, and where a volume is, seen from the OMA and that VM."""

from __future__ import annotations

from oma.domain.evidence import Evidence
from oma.domain.plan import TestVmPlan
from oma.domain.states import VolumePlace
from oma.domain.world import CloudVm, Unanswered, VolumeFacts


def find_test_vm(evidence: Evidence) -> CloudVm | None:
    """The VM that the newest failover recorded as its destination, if CloudStack lists it and it is not the OMA."""
    newest = evidence.records.newest_failover
    if newest is None or newest.job_type != "test" or not newest.destination_vm_id:
        return None
    if evidence.config is not None and newest.destination_vm_id == evidence.config.oma_vm_id:
        return None
    return evidence.find_vm(newest.destination_vm_id)


def build_test_vm_plan(evidence: Evidence) -> TestVmPlan | None:
    """What the plan says about a leftover test VM; one that is gone already needs nothing."""
    vm = find_test_vm(evidence)
    newest = evidence.records.newest_failover
    if vm is None or newest is None or vm.is_gone:
        return None
    return TestVmPlan(
        vm_id=vm.id,
        name=vm.name,
        state=vm.state,
        known_by=f"destination_vm_id of the failover {newest.job_id}",
    )


def place_of(facts: VolumeFacts, oma_vm_id: str | None, test_vm_id: str | None) -> VolumePlace:
    """CloudStack's word on where the volume is; the Volume Daemon's alone proves nothing."""
    volume = facts.cloud
    if isinstance(volume, Unanswered):
        return VolumePlace.UNKNOWN
    if volume is None:
        return VolumePlace.MISSING
    if not volume.is_settled:
        return VolumePlace.BUSY
    if volume.vm_id is None:
        return VolumePlace.DETACHED
    if volume.vm_id == oma_vm_id:
        return VolumePlace.ON_OMA
    if volume.vm_id == test_vm_id:
        return VolumePlace.ON_TEST_VM
    return VolumePlace.ON_FOREIGN_VM
