from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from tests.integration.volume_daemon.conftest import OMA_ID, SIZE, TEST_VM_ID, World, ended
from tests.integration.volume_daemon.installation import TABLES
from tests.mariadb import MariaDb
from volume_daemon.models import OperationStatus

MARIADB = pytest.mark.mariadb


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=MARIADB), pytest.param("installation", marks=MARIADB)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'oma.db'}"
    server: MariaDb = request.getfixturevalue("mariadb_server")
    name: str = request.getfixturevalue("mariadb_database")
    if request.param == "installation":
        for statement in TABLES:
            server.execute(statement, name)
    return server.url(name)


async def test_home_and_away_with_its_export(world: World):
    """OMA → test VM → OMA: mapping, mode and export follow, each in the rows and in the file."""
    volume_id = await world.add_volume(str(uuid4()))
    link = world.device_root / f"virtio-{volume_id.replace('-', '')[:20]}"
    name = f"migration-vol-{volume_id}"
    async with world.daemon() as client:
        home = await ended(client, await client.attach(volume_id, OMA_ID))
        assert (home.status, home.error) == (OperationStatus.COMPLETED, None)
        assert link.exists()
        mapping = await client.find_mapping(volume_id)
        assert mapping is not None
        assert (mapping.vm_id, mapping.device_path, mapping.operation_mode) == (OMA_ID, str(link), "oma")
        assert (mapping.linux_state, mapping.size) == ("detected", SIZE)
        (export,) = world.query("SELECT * FROM nbd_exports")
        assert (export["export_name"], export["port"], export["device_mapping_uuid"]) == (name, 10809, volume_id)
        file = world.nbd_dir / f"{name}.conf"
        assert file.read_text().startswith(f"[{name}]\nexportname = {link}\n")

        away = await ended(client, await client.detach(volume_id))
        assert away.status is OperationStatus.COMPLETED
        assert not link.exists()
        assert not file.exists()
        assert await client.find_mapping(volume_id) is None
        assert world.query("SELECT * FROM device_mappings") == world.query("SELECT * FROM nbd_exports") == []

        await ended(client, await client.attach_root(volume_id, TEST_VM_ID))
        (row,) = world.query("SELECT * FROM device_mappings")
        assert (row["operation_mode"], row["device_path"]) == ("failover", f"remote-vm-{TEST_VM_ID}-{volume_id}")
        assert row["cloudstack_device_id"] == 0
        assert world.query("SELECT * FROM nbd_exports") == []

        await ended(client, await client.detach(volume_id))
        back = await ended(client, await client.attach(volume_id, OMA_ID))
        assert back.status is OperationStatus.COMPLETED
        (row,) = world.query("SELECT * FROM device_mappings")
        assert (row["operation_mode"], row["device_path"]) == ("oma", str(link))
        assert file.exists()
