from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from ossea.client import CloudStack
from tests.integration.volume_daemon.conftest import OMA_ID, TEST_VM_ID, World, ended
from volume_daemon.models import FaultKind, OperationStatus


@pytest.fixture
async def at_home(world: World) -> str:
    """A volume on the OMA with an export of an operator's own making."""
    volume_id = await world.add_volume(str(uuid4()), vm_id=OMA_ID)
    link = world.device_root / f"virtio-{volume_id.replace('-', '')[:20]}"
    with world.engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO device_mappings (id, volume_uuid, vm_id, device_path, cloudstack_state, linux_state, size,"
                " ossea_snapshot_id, snapshot_status) VALUES ('map-1', :v, :vm, :p, 'attached', 'detected', 1, 's-1', 'ready')"
            ),
            {"v": volume_id, "vm": OMA_ID, "p": str(link)},
        )
        connection.execute(
            text(
                "INSERT INTO nbd_exports (volume_id, device_mapping_uuid, export_name, device_path, port, config_path,"
                " status) VALUES (:v, :v, 'pgtest1-disk0', '/dev/vdb', 10999, :c, 'active')"
            ),
            {"v": volume_id, "c": str(world.nbd_dir / "pgtest1.conf")},
        )
    (world.nbd_dir / "pgtest1.conf").write_text("[pgtest1-disk0]\nexportname = /dev/vdb\nreadonly = true\n")
    return volume_id


def file_of(world: World) -> Path:
    return world.nbd_dir / "pgtest1.conf"


async def test_an_export_is_recorded_before_the_detach_and_comes_back_with_the_volume(world: World, at_home: str):
    async with world.daemon() as client:
        away = await ended(client, await client.detach(at_home))
        assert away.status is OperationStatus.COMPLETED
        assert not file_of(world).exists()
        assert world.query("SELECT * FROM nbd_exports") == []
        await ended(client, await client.attach(at_home, TEST_VM_ID))
        await ended(client, await client.detach(at_home))
        back = await ended(client, await client.attach(at_home, OMA_ID))
    assert (back.status, back.error) == (OperationStatus.COMPLETED, None)
    link = world.device_root / f"virtio-{at_home.replace('-', '')[:20]}"
    (export,) = world.query("SELECT * FROM nbd_exports")
    assert (export["export_name"], export["port"], export["device_path"]) == ("pgtest1-disk0", 10999, str(link))
    assert file_of(world).read_text() == f"[pgtest1-disk0]\nexportname = {link}\nreadonly = true\n"
    (mapping,) = world.query("SELECT * FROM device_mappings")
    assert (mapping["id"], mapping["operation_mode"]) == ("map-1", "oma")
    # The snapshot that the old mapping named is not one that CloudStack knows.
    assert (mapping["ossea_snapshot_id"], mapping["snapshot_status"]) == (None, "none")


async def test_tracking_of_a_snapshot_that_is_still_there_survives_the_detach(world: World, at_home: str):
    snapshot_id = str(uuid4())
    await world.admin.seed(snapshots=[{"id": snapshot_id, "volume_id": at_home, "name": "test-failover-1"}])
    with world.engine.begin() as connection:
        connection.execute(text("UPDATE device_mappings SET ossea_snapshot_id = :s"), {"s": snapshot_id})
    async with world.daemon() as client:
        await ended(client, await client.detach(at_home))
        await ended(client, await client.attach(at_home, TEST_VM_ID))
    (mapping,) = world.query("SELECT * FROM device_mappings")
    assert (mapping["ossea_snapshot_id"], mapping["snapshot_status"]) == (snapshot_id, "ready")


async def test_a_detach_that_cloudstack_refuses_leaves_the_export_as_it_was(world: World, at_home: str):
    """6-safety 4: 431 also says "VM snapshots"; the operation fails with CloudStack's own code and words."""
    await world.admin.add_vm_snapshot(OMA_ID)
    before = file_of(world).read_text()
    async with world.daemon() as client:
        operation = await ended(client, await client.detach(at_home))
        assert operation.status is OperationStatus.FAILED
        assert operation.error_detail is not None
        assert (operation.error_detail.errorcode, operation.error_detail.kind) == (431, FaultKind.REFUSED)
        assert str(operation.error_detail.errortext) in (operation.error or "")
        assert (await client.find_mapping(at_home)) is not None
    assert file_of(world).read_text() == before
    assert [row["export_name"] for row in world.query("SELECT * FROM nbd_exports")] == ["pgtest1-disk0"]


@pytest.mark.parametrize("place", ["a-file/conf.d", "missing"])
async def test_a_configuration_that_cannot_be_written_refuses_before_cloudstack_is_asked(
    world: World, at_home: str, place: str
):
    (world.path / "a-file").write_text("")
    blocked = world.path / place
    async with world.daemon(nbd_config_dir=blocked) as client:
        operation = await ended(client, await client.detach(at_home))
        health = await client.health()
    assert operation.status is OperationStatus.FAILED
    assert operation.error_detail is not None
    assert (operation.error_detail.code, operation.error_detail.kind) == ("nbd_config_unwritable", FaultKind.REFUSED)
    assert await world.changes("detachVolume") == []
    assert world.query("SELECT new_status FROM volume_operation_history") == [{"new_status": "failed"}]
    assert len(world.query("SELECT * FROM nbd_exports")) == 1
    assert health["status"] == "degraded"
    assert not health["dependencies"]["nbd"]["ok"]


async def test_a_volume_may_come_home_without_its_export_and_get_it_later(world: World, at_home: str):
    async with world.daemon() as client:
        await ended(client, await client.detach(at_home))
        bare = await ended(client, await client.attach(at_home, OMA_ID, export=False))
        assert bare.status is OperationStatus.COMPLETED
        assert world.query("SELECT * FROM nbd_exports") == []
        assert list(world.nbd_dir.iterdir()) == []
        await ended(client, await client.attach(at_home, OMA_ID))
    assert [row["export_name"] for row in world.query("SELECT * FROM nbd_exports")] == ["pgtest1-disk0"]
    assert file_of(world).exists()


async def test_a_failed_reload_fails_the_homecoming_and_a_repetition_mends_it(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    async with world.daemon(nbd_reload_command=["false"]) as client:
        operation = await ended(client, await client.attach(volume_id, OMA_ID))
        assert operation.error_detail is not None
        assert operation.error_detail.code == "nbd_reload_failed"
        assert len(world.query("SELECT * FROM device_mappings")) == len(world.query("SELECT * FROM nbd_exports")) == 1
    async with world.daemon(nbd_reload_command=["true"]) as client:
        again = await ended(client, await client.attach(volume_id, OMA_ID))
    assert (again.status, again.error) == (OperationStatus.COMPLETED, None)
    assert len(await world.changes("attachVolume")) == 1


async def test_a_second_detach_after_a_device_that_stayed_keeps_the_exports_text(world: World, at_home: str):
    """The first one took the file and left the row: the text stands in the journal alone."""
    link = world.path / "elsewhere" / f"virtio-{at_home.replace('-', '')[:20]}"
    link.parent.mkdir()
    link.symlink_to(world.path / "oma.db")
    async with world.daemon(device_root=link.parent, operation_timeout_s=0.3) as client:
        stuck = await ended(client, await client.detach(at_home))
        assert stuck.error_detail is not None
        assert stuck.error_detail.code == "device_still_visible"
        assert not file_of(world).exists()
        link.unlink()
        assert (await ended(client, await client.detach(at_home))).status is OperationStatus.COMPLETED
    async with world.daemon() as client:
        await ended(client, await client.attach(at_home, OMA_ID))
    assert "readonly = true" in file_of(world).read_text()


async def test_a_homecoming_while_the_row_still_stands_keeps_the_exports_text(world: World, at_home: str):
    file_of(world).write_text("[pgtest1-disk0]\nexportname = /dev/vdb\nmaxconnections = 4\n")
    async with world.daemon() as client:
        again = await ended(client, await client.attach(at_home, OMA_ID))
    assert (again.status, again.error) == (OperationStatus.COMPLETED, None)
    assert "maxconnections = 4" in file_of(world).read_text()


async def test_a_snapshot_is_tracked_again_only_once_cloudstack_has_listed_it(world: World, at_home: str):
    """Silence at the reattach: a dead id put back would show the clean VM as one that needs a clean-up."""
    kept, gone = str(uuid4()), str(uuid4())
    await world.admin.seed(snapshots=[{"id": kept, "volume_id": at_home, "name": "test-failover-1"}])
    for snapshot_id, expected in ((kept, kept), (gone, None)):
        with world.engine.begin() as connection:
            connection.execute(
                text("UPDATE device_mappings SET ossea_snapshot_id = :s, snapshot_status = 'ready'"),
                {"s": snapshot_id},
            )
        async with world.daemon() as client:
            await ended(client, await client.detach(at_home))
            await world.admin.add_fault("listSnapshots", "http_status", errorcode=503, times=2)
            back = await ended(client, await client.attach(at_home, OMA_ID))
        assert (back.status, back.error) == (OperationStatus.COMPLETED, None)
        (mapping,) = world.query("SELECT ossea_snapshot_id FROM device_mappings")
        assert mapping["ossea_snapshot_id"] == expected
    calls = await world.admin.calls()
    assert len([one for one in calls if one["command"] == "listSnapshots"]) == 6


async def test_an_unforeseen_fault_at_the_end_of_an_attach_still_leaves_its_mapping(world: World, at_home: str):
    """A trigger stands for whatever a foreign database refuses."""
    volume_id = await world.add_volume(str(uuid4()))
    with world.engine.begin() as connection:
        connection.execute(
            text("CREATE TRIGGER no_exports BEFORE INSERT ON nbd_exports BEGIN SELECT RAISE(ABORT, 'not here'); END")
        )
    async with world.daemon() as client:
        operation = await ended(client, await client.attach(volume_id, OMA_ID))
        assert operation.error_detail is not None
        assert (operation.error_detail.code, operation.error_detail.kind) == ("internal_error", FaultKind.FAILED)
    (mapping,) = world.query("SELECT * FROM device_mappings WHERE volume_uuid = :v", v=volume_id)
    assert (mapping["vm_id"], mapping["operation_mode"], mapping["linux_state"]) == (OMA_ID, "oma", "unknown")


async def test_an_unforeseen_fault_before_cloudstack_is_asked_puts_the_export_back(
    world: World, at_home: str, monkeypatch: pytest.MonkeyPatch
):
    before = file_of(world).read_text()

    async def broken(*_: object, **__: object) -> str:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(CloudStack, "detach_volume", broken)
    world.cloudstack.update(expires_s=1, late_s=1)  # it may have been sent, and is followed until it can arrive no more
    async with world.daemon() as client:
        operation = await ended(client, await client.detach(at_home))
    assert operation.error_detail is not None
    assert operation.error_detail.code == "internal_error"
    assert file_of(world).read_text() == before
    assert len(world.query("SELECT * FROM nbd_exports")) == 1


async def test_an_end_that_can_not_hold_the_mapping_is_written_without_it(world: World):
    volume_id = await world.add_volume(str(uuid4()))
    with world.engine.begin() as connection:
        connection.execute(
            text("CREATE TRIGGER none BEFORE INSERT ON device_mappings BEGIN SELECT RAISE(ABORT, 'not here'); END")
        )
    async with world.daemon() as client:
        operation = await ended(client, await client.attach(volume_id, OMA_ID))
        assert operation.error_detail is not None
        assert operation.error_detail.code == "internal_error"
        # CloudStack tells where it is, whatever the rows say.
        mapping = await client.find_mapping(volume_id)
    assert mapping is not None
    assert mapping.vm_id == OMA_ID


async def test_an_export_whose_name_another_volume_has_taken_meanwhile_is_not_written_over(world: World, at_home: str):
    """Its file would lead the other volume's NBD clients onto this one's device."""
    other = await world.add_volume(str(uuid4()))
    async with world.daemon() as client:
        await ended(client, await client.detach(at_home))
        await ended(client, await client.attach(other, OMA_ID))
        world.execute(
            "UPDATE nbd_exports SET export_name = 'pgtest1-disk0', config_path = :c WHERE volume_id = :v",
            c=str(file_of(world)),
            v=other,
        )
        theirs = "[pgtest1-disk0]\nexportname = /dev/vdx\n"
        file_of(world).write_text(theirs)
        back = await ended(client, await client.attach(at_home, OMA_ID))
    assert back.error_detail is not None
    assert (back.error_detail.code, back.error_detail.kind) == ("nbd_export_name_taken", FaultKind.FAILED)
    assert file_of(world).read_text() == theirs
    mapped = world.query("SELECT volume_uuid FROM device_mappings ORDER BY volume_uuid")
    assert [row["volume_uuid"] for row in mapped] == sorted([other, at_home])
