"""The event log: what deploy, start, stop and destroy write, what a seeded VM went through, a purge."""

from __future__ import annotations

import pytest

from ossea.simulator.model import history
from ossea.simulator.model.catalog import SERVICE_OFFERING_ID, TEMPLATE_ID, ZONE_ID
from ossea.simulator.model.rows import SeedFault
from tests.unit.simulator.cloud import OMA, V1, VM, Cloud

NEW = VM.replace("b1", "b9")


def events(cloud: Cloud, vm_id: str = VM) -> list[tuple[str, str]]:
    """Type and state, oldest first."""
    rows = cloud.call("listEvents", resourceid=vm_id, resourcetype="VirtualMachine").get("event", [])
    assert {row["resourceid"] for row in rows} <= {vm_id}
    return [(row["type"], row["state"]) for row in reversed(rows)]


def seed(cloud: Cloud, **fields: object) -> Cloud:
    cloud.model.seed(cloud.now, vms=[{"id": NEW, "name": "new", **fields}])
    return cloud


MADE = [("VM.CREATE", "Created"), ("VM.CREATE", "Scheduled")]


def deploy(cloud: Cloud, start: str) -> str:
    words = {"zoneid": ZONE_ID, "serviceofferingid": SERVICE_OFFERING_ID, "templateid": TEMPLATE_ID}
    answer = cloud.call("deployVirtualMachine", **words, name="new", startvm=start)
    cloud.pass_time(8)
    return str(answer["id"])


@pytest.mark.parametrize(("generation", "doing"), [("4.11", "starting"), ("4.20", "deploying")])
def test_a_deploy_that_does_not_start(generation: str, doing: str) -> None:
    cloud = Cloud(generation=generation, event_resource=True)
    vm_id = deploy(cloud, "false")
    assert events(cloud, vm_id) == MADE
    texts = [row["description"] for row in cloud.call("listEvents", type="VM.CREATE", resourceid=vm_id,
                                                      resourcetype="VirtualMachine")["event"]]  # fmt: skip
    assert texts == [
        f"Scheduled async job for {doing} Vm. Vm Id: {vm_id}",
        f"Successfully created entity for deploying Vm. Vm Id: {vm_id}",
    ]


def test_a_deploy_that_starts_says_so_without_vm_start() -> None:
    cloud = Cloud()
    assert events(cloud, deploy(cloud, "true")) == [*MADE, ("VM.CREATE", "Started"), ("VM.CREATE", "Completed")]


def test_start_stop_and_destroy_are_told() -> None:
    cloud = Cloud().put(V1, VM, 0)
    before = len(events(cloud))
    for command in ("startVirtualMachine", "stopVirtualMachine", "destroyVirtualMachine"):
        cloud.done(command, id=VM)
    told = events(cloud)[before:]
    assert [kind for kind, state in told if state == "Completed"] == ["VM.START", "VM.STOP", "VM.DESTROY"]
    assert {state for _, state in told} == {"Scheduled", "Started", "Completed"}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"state": "Stopped"}, MADE),
        ({"state": "Running"}, [*MADE, ("VM.START", "Completed")]),
        ({"state": "Running", "started": False}, MADE),
        ({"state": "Stopped", "started": True}, [*MADE, ("VM.START", "Completed"), ("VM.STOP", "Completed")]),
        ({"state": "Destroyed"}, [*MADE, ("VM.DESTROY", "Completed")]),
        ({"state": "Running", "events": []}, []),
        ({"events": [{"type": "VM.REBOOT"}]}, [("VM.REBOOT", "Completed")]),
    ],
)
def test_a_seeded_vm_has_a_past(fields: dict[str, object], told: list[tuple[str, str]]) -> None:
    assert events(seed(Cloud(), **fields), NEW) == told


def test_a_past_has_its_times_and_is_listed_newest_first() -> None:
    cloud = seed(Cloud(), state="Destroyed", created="1970-01-02T00:00:00+00:00", destroyed_at=90_000)
    history.add_event(cloud.model.world, {"vm_id": NEW, "type": "VM.STOP", "created": 88_000})
    rows = cloud.call("listEvents", resourceid=NEW, resourcetype="VirtualMachine")["event"]
    assert [(row["type"], row["created"]) for row in rows][:3] == [
        ("VM.DESTROY", "1970-01-02T01:00:00+0000"),
        ("VM.STOP", "1970-01-02T00:26:40+0000"),
        ("VM.CREATE", "1970-01-02T00:00:00+0000"),
    ]


def test_a_purge_takes_one_vms_past_or_everybodys() -> None:
    cloud = seed(Cloud())
    assert history.purge_events(cloud.model.world, NEW) == 3
    assert (events(cloud, NEW), events(cloud, OMA) != []) == ([], True)
    history.purge_events(cloud.model.world)
    assert cloud.call("listEvents") == {}


def test_resourceid_wants_a_type_and_old_servers_know_neither() -> None:
    cloud = seed(Cloud())
    assert cloud.error("listEvents", resourceid=NEW).errorcode == 431
    old = seed(Cloud(event_resource=False))
    rows = old.call("listEvents", resourceid=NEW)["event"]
    assert len(rows) > 3, "everybody's"
    assert not any("resourceid" in row for row in rows)


@pytest.mark.parametrize(
    "fields", [{"events": "none"}, {"events": [{"kind": "VM.STOP"}]}, {"started": "yes"}, {"events": [{"type": ""}]}]
)
def test_a_past_that_makes_no_sense_leaves_no_vm(fields: dict[str, object]) -> None:
    cloud = Cloud()
    with pytest.raises(SeedFault):
        seed(cloud, **fields)
    assert cloud.model.world.vms.find(NEW) is None
