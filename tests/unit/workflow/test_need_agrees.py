"""The list's word on who needs a clean-up against the guards' word, over many shapes of records in a matching world."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import pytest

from oma.domain.evidence import Evidence, VmHistory
from oma.domain.records import OmaConfig
from oma.domain.world import CloudVm, Mapping, VmEvent, VolumeFacts
from oma.workflow.guards import judge
from oma.workflow.needs import needs_cleanup
from oma.workflow.observe import choose_config
from tests.unit.workflow import evidence as make
from tests.unit.workflow.evidence import FAILED_OVER_AT, NOW, OMA, TEST_VM

pytestmark = pytest.mark.rule("2-needs-cleanup")

ENDED = NOW - timedelta(hours=1)
FAILOVERS: dict[str, tuple[dict[str, Any], dict[str, Any]] | None] = {
    "none": None,
    "open and dead": ({}, {}),
    "open and alive": ({}, {"last_activity_at": NOW}),
    "open, its JobLog failed": ({}, {"status": "failed"}),
    "an empty status": ({"status": ""}, {}),
    "failed": ({"status": "failed", "completed_at": ENDED}, {"status": "failed"}),
    "failed, its JobLog runs": ({"status": "failed", "completed_at": ENDED}, {"last_activity_at": NOW}),
    "completed": ({"status": "completed", "completed_at": ENDED}, {"status": "completed"}),
    "JobLog completed": ({}, {"status": "completed"}),
    "taken back by somebody": ({"status": "reverting"}, {"status": "completed"}),
    "live without a VM": ({"job_type": "live", "destination_vm_id": None}, {}),
    "live with a VM": ({"job_type": "live"}, {}),
    "live and completed": ({"job_type": "live", "status": "completed", "completed_at": ENDED}, {"status": "completed"}),
}
PLACES = ("home", "test VM", "free")
TRACKED = ("nowhere", "ossea_volumes", "device_mappings", "failover_jobs")
STATUSES = ("failed_over_test", "ready_for_failover", "cleanup_required")
REPLICATIONS: dict[str, dict[str, Any]] = {
    "completed": {},
    "running": {"status": "running", "completed_at": None, "updated_at": NOW},
    "dead": {"status": "running", "completed_at": None, "updated_at": FAILED_OVER_AT - timedelta(hours=1)},
}
RECORDS: dict[str, dict[str, Any]] = {
    "whole": {},
    "a disk without a row": {"disks": (make.disk_row(0), make.disk_row(1), make.disk_row(2))},
    "no disk": {"disks": ()},
    "claimed twice": {"shared_volume_ids": (make.volume_id(0),)},
    "no configuration": {"configs": ()},
    "two active configurations": {
        "volumes": tuple(make.volume_row(number, ossea_config_id=None) for number in range(2)),
        "configs": tuple(OmaConfig(number, "?", OMA, is_active=True) for number in (1, 2)),
    },
}
Shape = tuple[str, str, str, str, str]


def shapes() -> Iterator[Shape]:
    for shape in product(FAILOVERS, PLACES, TRACKED, STATUSES, REPLICATIONS):
        failover, place, tracked, _, _ = shape
        has_no_vm = failover in ("none", "live without a VM")
        if (place == "test VM" and has_no_vm) or (failover == "none" and tracked == "failover_jobs"):
            continue
        # Nothing to be tracked in; and a VM that was never failed over may have volumes that nobody attached yet.
        if place == "free" and (tracked == "device_mappings" or failover == "none"):
            continue
        # Only CloudStack knows whether the snapshot that an ended failover's row names is still there.
        if failover.startswith("failed") and tracked == "failover_jobs":
            continue
        # What needs a revert and has no snapshot is told by CloudStack and the JobLog, not by the list.
        if tracked == "nowhere" and (place != "home" or failover != "none"):
            continue
        yield shape


def facts_at(place: str, number: int) -> VolumeFacts:
    if place == "home":
        return make.at_home(number)
    return make.on_test_vm(number) if place == "test VM" else make.detached(number)


def build(shape: Shape) -> Evidence:
    """Two volumes that the records and the world show at one place, each with a good snapshot where one is tracked."""
    failover, place, tracked, status, replication = shape
    chosen = FAILOVERS[failover]
    row, log = chosen or ({}, {})
    by_failover = {"ossea_snapshot_id": make.snapshot_id(0)} if tracked == "failover_jobs" else {}
    mapped = {"operation_mode": "oma", "vm_id": OMA} if place == "home" else {}
    numbers = range(1) if tracked == "failover_jobs" else range(2)
    records = make.records(
        context=replace(make.records().context, current_status=status),
        volumes=tuple(
            make.volume_row(one, snapshot_id=make.snapshot_id(one) if tracked == "ossea_volumes" else None)
            for one in numbers
        ),
        disks=tuple(make.disk_row(one) for one in numbers),
        mappings=tuple(
            make.mapping_row(
                one, ossea_snapshot_id=make.snapshot_id(one) if tracked == "device_mappings" else None, **mapped
            )
            for one in numbers
            if place != "free"
        ),
        failovers=(make.failover(**by_failover, **row),) if chosen else (),
        joblog=(make.joblog(**log),) if chosen else (),
        replications=(make.replication(**REPLICATIONS[replication]),),
    )
    places = (tracked,) if tracked != "nowhere" else ()
    vm = CloudVm(TEST_VM, "pgtest1-test", "Stopped")
    return make.build(
        records=records,
        volumes=tuple(facts_at(place, one) for one in numbers),
        snapshots=tuple(replace(make.tracked(one), tracked_in=places) for one in numbers if places),
        devices=make.scan(*(numbers if place == "home" else ())),
        vms=(CloudVm(OMA, "oma", "Running"), *((vm,) if chosen else ())),
        histories=(VmHistory(TEST_VM, (VmEvent("VM.CREATE", FAILED_OVER_AT, "creating Vm"),)),),
    )


def disagreement(evidence: Evidence) -> str | None:
    need = needs_cleanup(evidence.records, NOW, evidence.limits)
    codes = [refusal.code.value for refusal in judge(evidence)]
    return None if need.recommended is (not codes) else f"the list says {need}, the guards say {codes}"


def test_the_list_and_the_guards_agree() -> None:
    found = {shape: said for shape in shapes() if (said := disagreement(build(shape))) is not None}
    assert not found, f"{len(found)}: " + "\n".join(f"{shape}: {said}" for shape, said in list(found.items())[:20])


@pytest.mark.parametrize("records", RECORDS)
def test_they_agree_on_records_that_are_not_whole(records: str) -> None:
    evidence = make.build()
    changed = replace(evidence.records, **RECORDS[records])
    assert disagreement(replace(evidence, records=changed, config=choose_config(changed))) is None


def test_the_world_is_the_one_that_the_records_tell_of() -> None:
    """Else nothing would be compared: both answers are there, often."""
    answers = [needs_cleanup(build(shape).records, NOW, make.build().limits).recommended for shape in shapes()]
    assert min(answers.count(True), answers.count(False)) > 100
    facts = build(("open and dead", "home", "ossea_volumes", "failed_over_test", "completed")).volumes[0]
    assert isinstance(facts.mapping, Mapping)
