"""Whose an entity is: projects and other accounts; what servers of other generations do not know."""

from __future__ import annotations

import pytest

from ossea.simulator.model import Settings
from ossea.simulator.model.rows import SeedFault
from ossea.simulator.model.settings import SettingsFault
from tests.unit.simulator.cloud import MIB, OMA, S1, V1, V2, VM, Cloud

PROJECT = "00000000-0000-4000-8000-0000000000d1"
PVM = "00000000-0000-4000-8000-0000000000d2"
PV = "00000000-0000-4000-8000-0000000000d3"
PS = "00000000-0000-4000-8000-0000000000d4"


@pytest.fixture
def cloud() -> Cloud:
    """One VM of a project with one volume, whose snapshot is the project's as well."""
    cloud = Cloud()
    cloud.model.seed(
        cloud.now,
        projects=[{"id": PROJECT, "name": "migrations"}],
        vms=[{"id": PVM, "name": "in-project", "project_id": PROJECT}],
        volumes=[{"id": PV, "name": "in-project-disk", "size_bytes": MIB, "vm_id": PVM}],
        snapshots=[{"id": PS, "volume_id": PV, "name": "kept"}],
    )
    return cloud


LISTS = [
    ("listVolumes", "volume", PV),
    ("listSnapshots", "snapshot", PS),
    ("listVirtualMachines", "virtualmachine", PVM),
]


def ids(cloud: Cloud, command: str, key: str, **words: object) -> set[str]:
    return {row["id"] for row in cloud.call(command, listall="true", **words).get(key, [])}


@pytest.mark.parametrize(("command", "key", "row_id"), LISTS)
def test_a_projects_rows_are_listed_by_projectid_only(cloud: Cloud, command: str, key: str, row_id: str) -> None:
    assert row_id not in ids(cloud, command, key)
    assert ids(cloud, command, key, id=row_id) == set()
    everything = ids(cloud, command, key, projectid="-1")
    assert everything > {row_id}
    assert ids(cloud, command, key, projectid="-1", id=row_id) == {row_id}
    assert ids(cloud, command, key, projectid=PROJECT) == {row_id}
    shown = cloud.call(command, projectid=PROJECT)[key][0]
    assert (shown["projectid"], shown["project"], "account" in shown) == (PROJECT, "migrations", False)
    assert cloud.error(command, projectid=VM).errorcode == 431


def test_what_hangs_on_a_projects_entity_is_the_projects(cloud: Cloud) -> None:
    cloud.add_vm_snapshot(PVM)
    words = {"resourceids": PV, "resourcetype": "Volume", "tags[0].key": "k", "tags[0].value": "v"}
    cloud.done("createTags", **words)
    assert cloud.call("listVMSnapshot") == {}
    assert cloud.call("listTags") == {}
    assert cloud.call("listEvents", resourceid=PVM, resourcetype="VirtualMachine") == {}
    assert len(cloud.call("listVMSnapshot", projectid="-1")["vmSnapshot"]) == 1
    assert len(cloud.call("listTags", projectid="-1")["tag"]) == 1
    assert cloud.call("listEvents", resourceid=PVM, resourcetype="VirtualMachine", projectid="-1")["count"] > 0


def test_commands_reach_a_projects_entities_by_id(cloud: Cloud) -> None:
    cloud.done("detachVolume", id=PV)
    assert cloud.call("listProjects")["project"][0]["name"] == "migrations"


def test_another_accounts_rows_are_never_listed_and_refused_by_id() -> None:
    cloud = Cloud()
    cloud.model.seed(
        cloud.now,
        vms=[{"id": PVM, "name": "theirs", "account": "somebody"}],
        volumes=[{"id": PV, "name": "theirs", "size_bytes": MIB, "account": "somebody"}],
        snapshots=[{"id": PS, "volume_id": PV, "name": "theirs"}],
    )
    for command, key, row_id in LISTS:
        assert row_id not in ids(cloud, command, key) | ids(cloud, command, key, projectid="-1")
        assert ids(cloud, command, key, id=row_id) == set()
    for command, words in [
        ("revertSnapshot", {"id": PS}),
        ("deleteSnapshot", {"id": PS}),
        ("detachVolume", {"id": PV}),
        ("attachVolume", {"id": V1, "virtualmachineid": PVM}),
        ("destroyVirtualMachine", {"id": PVM}),
        ("deleteVolume", {"id": PV}),
    ]:
        error = cloud.error(command, **words)
        assert (error.errorcode, error.cserrorcode) == (531, 4365)
    words = {"resourceids": f"{V1},{PV}", "resourcetype": "Volume", "tags[0].key": "k", "tags[0].value": "v"}
    assert cloud.refusal("createTags", **words)[0] == 531
    assert cloud.call("listTags") == {}


def test_a_row_changes_hands() -> None:
    cloud = Cloud()
    cloud.set_snapshot(S1, account="somebody")
    assert cloud.call("listSnapshots", id=S1) == {}
    cloud.set_snapshot(S1, account="admin")
    assert cloud.snapshot()["account"] == "admin"


def test_a_project_that_is_not_there_is_refused() -> None:
    cloud = Cloud()
    with pytest.raises(SeedFault, match="names no project"):
        cloud.model.seed(cloud.now, volumes=[{"name": "x", "size_bytes": 1, "project_id": PROJECT}])


# Generations


def test_a_server_that_does_not_know_ids_lists_everything() -> None:
    cloud = Cloud(ids_parameter=False)
    assert ids(cloud, "listVolumes", "volume", ids=V1) == {V1, V2}
    assert ids(cloud, "listVirtualMachines", "virtualmachine", ids="nobody") == {OMA, VM}


def test_the_oldest_generation_knows_no_job_id_of_ours_no_ids_and_no_resource_of_an_event() -> None:
    cloud = Cloud(generation="4.5")
    mine = "c0ffee00-0000-4000-8000-000000000001"
    assert cloud.start("detachVolume", id=V1, customjobid=mine) != mine
    assert cloud.error("queryAsyncJobResult", jobid=mine).errorcode == 431
    assert ids(cloud, "listVolumes", "volume", ids=V1) == {V1, V2}
    assert "resourceid" not in cloud.call("listEvents", type="VOLUME.DETACH")["event"][0]
    assert cloud.call("listCapabilities")["capability"]["cloudstackversion"] == "4.5.2"
    assert cloud.call("listVolumes", colour="red")["count"] == 2


@pytest.mark.parametrize(("generation", "code", "conflict"), [("4.11", 530, 431), ("4.20", 431, 530)])
def test_error_shapes_by_generation(generation: str, code: int, conflict: int) -> None:
    cloud = Cloud(generation=generation)
    mine = "c0ffee00-0000-4000-8000-000000000001"
    job = cloud.run("detachVolume", id=V1, customjobid=mine)
    assert (job["jobid"], job["jobresultcode"], job["jobresult"]["errorcode"]) == (mine, code, 431)
    assert cloud.error("detachVolume", id=V1, customjobid=mine).errorcode == conflict


def test_single_settings_complete_a_generation() -> None:
    settings = Settings().patched({"generation": "4.20", "revert_mode": "in_place"})
    assert (settings.custom_job_id_conflict_code, settings.revert_mode) == (530, "in_place")
    assert Settings().patched(settings.as_json()) == settings


@pytest.mark.parametrize(
    "changes",
    [
        {"generation": "5"},
        {"revert_mode": "magic"},
        {"denied_commands": "listHosts"},
        {"denied_commands": [1]},
        {"agent_wait_s": -1},
        {"ids_parameter": 1},
    ],
)
def test_settings_that_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(SettingsFault):
        Settings().patched(changes)
