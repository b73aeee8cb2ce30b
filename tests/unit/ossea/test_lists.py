"""Lists are read whole: a page limit, a moving list or one unknown id must not make something look missing."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ossea.client import CloudStack
from ossea.errors import CloudStackError, ErrorKind
from ossea.models import Snapshot, VirtualMachine, Volume
from tests.unit.ossea.stub import UNKNOWN, Answer, Stub, error


def rows(count: int, start: int = 0):
    return [{"id": f"v{number}", "name": f"disk {number}"} for number in range(start, start + count)]


def page_of(items, count, array="volume"):
    return Answer(body={"xresponse": {"count": count, array: items}})


def ids(volumes):
    return [volume.id for volume in volumes]


async def test_an_empty_list_is_an_empty_object(stub: Stub, client: CloudStack):
    assert await client.list_volumes() == []
    assert stub.sent("listVolumes")[0]["listall"] == "true"


@pytest.mark.parametrize(("count", "requests"), [(1, 1), (499, 1), (500, 2), (501, 2), (1203, 3)])
async def test_every_page_is_read(stub: Stub, client: CloudStack, count, requests):
    stub.tables["listVolumes"] = rows(count)
    assert ids(await client.list_volumes()) == [f"v{number}" for number in range(count)]
    assert stub.count("listVolumes") == requests
    assert all("page" in params and int(params["pagesize"]) <= 500 for params in stub.sent("listVolumes"))


async def test_a_lowered_page_size_is_learned_and_kept(stub: Stub, client: CloudStack):
    stub.page_limit = 40
    stub.tables["listVolumes"] = rows(95)
    assert len(await client.list_volumes()) == 95
    assert [params["pagesize"] for params in stub.sent("listVolumes")] == ["500", "40", "40", "40"]
    await client.list_zones()
    assert stub.sent("listZones")[0]["pagesize"] == "40"


async def test_a_page_size_lowered_between_pages_starts_the_list_again(stub: Stub, client: CloudStack):
    stub.page_limit = 50
    stub.tables["listVolumes"] = rows(120)
    await client.list_volumes()
    stub.script(
        "listVolumes", page_of(rows(50), 120), error(431, "Page size can't exceed max allowed page size value: 30")
    )
    assert len(await client.list_volumes()) == 120


async def test_a_server_that_cuts_pages_silently_is_read_to_the_end(stub: Stub, client: CloudStack):
    stub.script("listVolumes", page_of(rows(20), 45), page_of(rows(20, 20), 45), page_of(rows(5, 40), 45))
    assert len(await client.list_volumes()) == 45


async def test_a_new_item_between_pages_shows_nothing_twice_and_the_list_is_read_again(stub: Stub, client: CloudStack):
    stub.script("listVolumes", page_of(rows(500), 600), page_of(rows(101, 499), 601))
    stub.tables["listVolumes"] = rows(601)
    found = ids(await client.list_volumes())
    assert len(found) == len(set(found)) == 601


async def test_an_item_that_moved_to_a_page_already_read_is_not_missing(stub: Stub, client: CloudStack):
    """One of the first page was deleted: what came first on the second page has moved to the first."""
    stub.script("listVolumes", page_of(rows(500), 600), page_of(rows(99, 501), 599))
    stub.tables["listVolumes"] = rows(600)[1:]
    assert "v500" in ids(await client.list_volumes())


async def test_a_list_that_never_holds_still_is_an_error_not_a_guess(stub: Stub, client: CloudStack):
    for _ in range(5):
        stub.script("listVolumes", page_of(rows(500), 600), page_of(rows(99, 501), 599))
    with pytest.raises(CloudStackError, match="changed between pages") as caught:
        await client.list_volumes()
    assert caught.value.kind is ErrorKind.BROKEN_ANSWER


async def test_fewer_items_than_counted_is_an_error(stub: Stub, client: CloudStack):
    for _ in range(5):
        stub.script("listVolumes", page_of(rows(3), 5), Answer(body={"xresponse": {}}))
    with pytest.raises(CloudStackError):
        await client.list_volumes()


async def test_unknown_ids_are_missing_and_the_others_are_found(stub: Stub, client: CloudStack):
    stub.tables["listVolumes"] = rows(8)
    asked = ["v1", "ghost", "v3", "v5", "phantom", "v1"]
    assert ids(await client.list_volumes(ids=asked)) == ["v1", "v3", "v5"]


async def test_one_unknown_id_alone_is_missing(client: CloudStack):
    assert await client.list_snapshots(ids=["ghost"]) == []


async def test_no_ids_ask_for_nothing(stub: Stub, client: CloudStack):
    stub.tables["listVolumes"] = rows(8)
    assert await client.list_volumes(ids=[]) == []
    assert stub.count("listVolumes") == 0


@pytest.mark.parametrize("asked", [["v1", "v2"], ["v1", ""], [""]])
async def test_a_server_that_ignores_ids_shows_only_what_was_asked_for(stub: Stub, client: CloudStack, asked):
    stub.ignores_ids = True
    stub.tables["listVolumes"] = rows(8)
    assert ids(await client.list_volumes(ids=asked)) == [one for one in asked if one]


async def test_many_ids_keep_the_address_short(stub: Stub, client: CloudStack):
    asked = [f"00000000-0000-4000-8000-{number:012d}" for number in range(250)]
    stub.tables["listVolumes"] = [{"id": one, "name": "n"} for one in asked]
    assert sorted(ids(await client.list_volumes(ids=asked))) == asked
    assert stub.count("listVolumes") == 3
    assert max(len(params["ids"]) for params in stub.sent("listVolumes")) < 4000


async def test_another_431_about_ids_is_an_error(stub: Stub, client: CloudStack):
    stub.script("listVolumes", error(431, "Specify either id or ids but not both parameters"))
    with pytest.raises(CloudStackError) as caught:
        await client.list_volumes(ids=["v1", "v2"])
    assert caught.value.kind is ErrorKind.REFUSED


async def test_the_vm_snapshot_of_one_vm_that_is_unknown(stub: Stub, client: CloudStack):
    stub.script(
        "listVMSnapshot", error(431, UNKNOWN.format(command="listvmsnapshot", name="virtualmachineid", value="x"))
    )
    assert await client.list_vm_snapshots(vm_ids=["gone"]) == []


async def test_vm_snapshots_of_several_vms_are_listed_at_once_also_in_projects(stub: Stub, client: CloudStack):
    def answer(params: dict[str, str]):
        own, projects = ("a", "stranger"), ("b",)
        vm_ids = projects if params.get("projectid") == "-1" else own
        held = [{"id": f"snapshot of {vm}", "virtualmachineid": vm, "state": "Ready"} for vm in vm_ids]
        return Answer(body={"xresponse": {"count": len(held), "vmSnapshot": held}})

    stub.script("listVMSnapshot", answer, answer)
    found = await client.list_vm_snapshots(vm_ids=["a", "b", "gone"])
    assert sorted(snapshot.vm_id for snapshot in found) == ["a", "b"]


async def test_tags_are_told_apart_by_resource_and_key(stub: Stub, client: CloudStack):
    stub.tables["listTags"] = [
        {"key": key, "value": "x", "resourceid": resource, "resourcetype": "Volume", "account": "a"}
        for resource in ("v1", "v2")
        for key in ("oma-cleanup", "oma-epoch")
    ]
    found = await client.list_tags(resource_type="Volume")
    assert {(tag.resource_id, tag.key) for tag in found} == {
        (resource, key) for resource in ("v1", "v2") for key in ("oma-cleanup", "oma-epoch")
    }


def test_a_volume_with_everything_and_fields_from_the_future():
    volume = Volume.parse(
        {
            "id": "v", "name": "n", "state": "Ready", "type": "ROOT", "size": 42, "virtualmachineid": "vm",
            "vmname": "i-2", "vmstate": "Running", "deviceid": 0, "jobid": "j", "jobstatus": 0, "zoneid": "z",
            "hologram": {"new": True},
        }
    )  # fmt: skip
    assert volume == Volume("v", "n", "Ready", "ROOT", 42, "vm", "i-2", "Running", 0, "j", 0, "z")
    assert volume.pending_job_id == "j"


def test_an_ended_job_on_a_volume_is_not_pending():
    assert Volume.parse({"id": "v", "jobid": "j", "jobstatus": 1}).pending_job_id is None
    assert Volume.parse({"id": "v", "jobid": "j"}).pending_job_id == "j"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-01T02:00:00+0200", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2025-12-31T19:00:00-0500", datetime(2026, 1, 1, tzinfo=UTC)),
        ("2026-01-01T00:00:00", None),
        ("yesterday", None),
        (None, None),
    ],
)
def test_times_become_aware_utc_or_nothing(written, read):
    assert Snapshot.parse({"id": "s", "created": written}).created == read
    assert VirtualMachine.parse({"id": "s", "created": written}).created == read


def test_a_snapshot_of_an_older_server_has_no_size_and_does_not_say_whether_it_can_be_reverted():
    snapshot = Snapshot.parse({"id": "s", "volumeid": "v", "name": "n", "state": "BackedUp", "physicalsize": 7})
    assert (snapshot.size_bytes, snapshot.revertable) == (None, None)


def owned_by_a_project(table, array="volume"):
    """`listall` leaves it out; asked for projects alone, the account's own things are left out."""

    def answer(params):
        wanted = params.get("ids", params.get("id", "")).split(",")
        named = [row for row in table if row["id"] in wanted] if wanted != [""] else table
        shown = [row for row in named if ("projectid" in params) == row["project"]]
        return page_of(shown, len(shown), array)

    return answer


@pytest.mark.parametrize("asked", [["v1"], ["v0", "v1", "gone"]])
async def test_what_is_not_listed_is_looked_for_in_projects(stub: Stub, client: CloudStack, asked):
    table = [{**row, "project": row["id"] == "v1"} for row in rows(3)]
    stub.script("listVolumes", *[owned_by_a_project(table)] * 2)
    assert ids(await client.list_volumes(ids=asked)) == [one for one in asked if one != "gone"]


async def test_volumes_of_a_vm_in_a_project_are_listed(stub: Stub, client: CloudStack):
    stub.script("listVolumes", *[owned_by_a_project([{**row, "project": True} for row in rows(2)])] * 2)
    assert ids(await client.list_volumes(vm_id="vm-1")) == ["v0", "v1"]
    assert [params.get("projectid") for params in stub.sent("listVolumes")] == [None, "-1"]


async def test_events_of_a_vm_in_a_project_are_listed(stub: Stub, client: CloudStack):
    stub.script("listEvents", *[owned_by_a_project([{**row, "project": True} for row in rows(2)], "event")] * 2)
    assert len(await client.list_events(resource_id="vm-1")) == 2
    assert [params.get("projectid") for params in stub.sent("listEvents")] == [None, "-1"]


async def test_what_is_listed_is_not_asked_for_twice(stub: Stub, client: CloudStack):
    stub.tables["listVolumes"] = rows(2)
    await client.list_volumes(ids=["v0", "v1"])
    assert stub.count("listVolumes") == 1
