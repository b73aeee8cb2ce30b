"""Lists: filters, pages, envelopes, tags, events and the catalogue."""

from __future__ import annotations

import pytest

from tests.unit.simulator.cloud import MIB, OMA, S1, V1, V2, VM, Cloud

UNKNOWN = "00000000-0000-4000-8000-00000000ffff"


def many(cloud: Cloud, count: int) -> None:
    cloud.model.seed(cloud.now, volumes=[{"name": f"v{n}", "size_bytes": 512} for n in range(count)])


def ids(cloud: Cloud, **params: object) -> list[str]:
    return [volume["id"] for volume in cloud.call("listVolumes", **params).get("volume", [])]


def test_an_empty_list_is_an_empty_object() -> None:
    cloud = Cloud()
    assert cloud.call("listVolumes", virtualmachineid=VM) == {}
    assert cloud.call("listVMSnapshot") == {}
    assert cloud.call("listTags", key="none") == {}


def test_newest_first_with_the_count_of_all() -> None:
    cloud = Cloud()
    many(cloud, 3)
    answer = cloud.call("listVolumes", page=1, pagesize=2)
    assert answer["count"] == 5
    assert [volume["name"] for volume in answer["volume"]] == ["v2", "v1"]
    assert [v["name"] for v in cloud.call("listVolumes", page=3, pagesize=2)["volume"]] == ["pgtest1-disk-0"]
    assert cloud.call("listVolumes", page=4, pagesize=2) == {}


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"page": 1, "pagesize": 501}, "Page size can not exceed max allowed page size value: 500"),
        ({"pagesize": 10}, '"page" parameter is required when "pagesize" is specified'),
    ],
)
def test_pages_that_are_refused(params: dict[str, int], text: str) -> None:
    error = Cloud().error("listVolumes", **params)
    assert (error.errorcode, error.text) == (431, text)


def test_a_lowered_default_page_size_cuts_lists_and_refuses_larger_pages() -> None:
    cloud = Cloud(default_page_size=2)
    many(cloud, 3)
    answer = cloud.call("listVolumes")
    assert (answer["count"], len(answer["volume"])) == (5, 2)
    assert cloud.error("listVolumes", page=1, pagesize=500).errorcode == 431


def test_volumes_by_id_ids_vm_name_and_type() -> None:
    cloud = Cloud()
    cloud.put(V1, VM, 0)
    assert ids(cloud, id=V1) == [V1]
    assert ids(cloud, ids=f"{V1},{V2}") == [V1, V2]
    assert ids(cloud, virtualmachineid=VM) == [V1]
    assert ids(cloud, id=V2, virtualmachineid=VM) == []
    assert ids(cloud, name="pgtest1-disk-1") == [V2]
    assert ids(cloud, type="ROOT") == [V1]
    assert cloud.error("listVolumes", id=UNKNOWN).errorcode == 431
    assert cloud.error("listVolumes", id=V1, ids=V2).errorcode == 431


def test_null_fields_are_left_out() -> None:
    volume = Cloud().volume()
    assert None not in volume.values()
    assert "virtualmachineid" not in volume


def test_snapshot_names_are_like() -> None:
    cloud = Cloud()
    assert [row["id"] for row in cloud.call("listSnapshots", name="failover")["snapshot"]] == [S1]
    assert cloud.call("listSnapshots", name="failover-2") == {}
    assert cloud.snapshot()["created"] == "1970-01-12T13:46:40+0000"


def test_delete_volume_is_synchronous() -> None:
    cloud = Cloud()
    cloud.put(V1, VM)
    assert cloud.error("deleteVolume", id=V1).errorcode == 431
    assert cloud.call("deleteVolume", id=V2) == {"success": "true"}
    assert ids(cloud, id=V2) == []


def test_create_volume_by_offering_and_from_a_snapshot() -> None:
    cloud = Cloud()
    zone = cloud.call("listZones")["zone"][0]["id"]
    offering = next(row for row in cloud.call("listDiskOfferings")["diskoffering"] if row["iscustomized"])
    answer = cloud.call("createVolume", name="new", zoneid=zone, diskofferingid=offering["id"], size=1)
    cloud.pass_time(1)
    assert cloud.job(answer["jobid"])["jobresult"]["volume"]["size"] == 1 << 30
    assert cloud.volume(answer["id"])["state"] == "Allocated"
    assert cloud.done("createVolume", name="copy", snapshotid=S1)["volume"]["size"] == MIB
    custom = "00000000-0000-4000-8000-00000000dddd"
    assert cloud.call("createVolume", name="c", snapshotid=S1, customid=custom)["id"] == custom
    assert cloud.error("createVolume", name="c", snapshotid=S1, customid=custom).errorcode == 431


def tag(cloud: Cloud, key: str, *resources: str, kind: str = "Volume") -> dict[str, object]:
    return cloud.run(
        "createTags",
        **{"resourceids": ",".join(resources), "resourcetype": kind, "tags[0].key": key, "tags[0].value": "x"},
    )


def test_tags_are_all_or_none() -> None:
    cloud = Cloud()
    assert tag(cloud, "oma-cleanup", V1)["jobresult"] == {"success": True}
    failed = tag(cloud, "oma-cleanup", V2, V1)
    assert (failed["jobstatus"], failed["jobresult"]["errorcode"]) == (2, 530)  # type: ignore[index]
    assert [row["resourceid"] for row in cloud.call("listTags", key="oma-cleanup")["tag"]] == [V1]
    assert cloud.volume(V1)["tags"][0]["value"] == "x"
    assert ids(cloud, **{"tags[0].key": "oma-cleanup"}) == [V1]


def test_tags_go_by_key_and_value_and_deleting_nothing_fails() -> None:
    cloud = Cloud()
    tag(cloud, "a", VM, kind="UserVm")
    tag(cloud, "b", VM, kind="UserVm")
    gone = {"resourceids": VM, "resourcetype": "UserVm", "tags[0].key": "a"}
    assert cloud.run("deleteTags", **{**gone, "tags[0].value": "other"})["jobresult"]["errorcode"] == 530
    assert cloud.done("deleteTags", **gone) == {"success": True}
    assert cloud.run("deleteTags", **gone)["jobresult"]["errorcode"] == 530
    assert [row["key"] for row in cloud.call("listTags", resourceid=VM)["tag"]] == ["b"]


def test_tags_on_the_unknown_are_refused() -> None:
    cloud = Cloud()
    assert tag(cloud, "a", UNKNOWN)["jobresult"]["errorcode"] == 431  # type: ignore[index]
    assert tag(cloud, "a", V1, kind="Planet")["jobresult"]["errorcode"] == 431  # type: ignore[index]
    assert cloud.error("createTags", resourceids=V1, resourcetype="Volume").errorcode == 431
    long = {"tags[0].key": "k" * 256, "tags[0].value": "v"}
    assert cloud.error("createTags", resourceids=V1, resourcetype="Volume", **long).errorcode == 431


def test_vm_snapshots_are_listed() -> None:
    cloud = Cloud()
    cloud.add_vm_snapshot(VM)
    rows = cloud.call("listVMSnapshot", virtualmachineid=VM)["vmSnapshot"]
    assert [(row["virtualmachineid"], row["state"]) for row in rows] == [(VM, "Ready")]


def test_a_revert_logs_only_that_it_was_scheduled() -> None:
    cloud = Cloud()
    cloud.done("revertSnapshot", id=S1)
    cloud.put(V1, VM)
    reverts = cloud.call("listEvents", type="SNAPSHOT.REVERT")["event"]
    assert [event["state"] for event in reverts] == ["Scheduled"]
    attaches = cloud.call("listEvents", type="VOLUME.ATTACH")["event"]
    assert [event["state"] for event in attaches] == ["Completed", "Started", "Scheduled"]


def test_capabilities_are_an_object_and_apis_hide_customjobid() -> None:
    cloud = Cloud()
    assert cloud.call("listCapabilities")["capability"]["cloudstackversion"] == "4.11.1.0"
    apis = {api["name"]: api for api in cloud.call("listApis")["api"]}
    assert apis["attachVolume"]["isasync"] is True
    assert apis["deleteVolume"]["isasync"] is False
    assert all(param["name"] != "customjobid" for api in apis.values() for param in api["params"])
    assert cloud.call("listHosts")["host"][0]["state"] == "Up"


def test_an_unknown_command_is_401() -> None:
    error = Cloud().error("launchRocket")
    assert (error.errorcode, error.cserrorcode) == (401, None)
    assert error.text == "unable to verify user credentials and/or request signature"


def test_vm_names_are_like_and_states_equal() -> None:
    cloud = Cloud()
    rows = cloud.call("listVirtualMachines", name="pgtest1")["virtualmachine"]
    assert [row["id"] for row in rows] == [VM]
    assert [row["id"] for row in cloud.call("listVirtualMachines", state="Running")["virtualmachine"]] == [OMA]
