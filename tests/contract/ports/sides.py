"""The two sides of the conformance suites: the fakes, and the adapters over real processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from uuid import uuid4

from sqlalchemy import create_engine, insert

from database.schema import upgrade
from database.tables import ossea_configs
from oma.adapters.cloudstack import CloudStackCloud
from oma.adapters.volume_daemon import VolumeDaemonVolumes
from oma.demo.programs import Program
from oma.demo.stack import as_toml
from oma.domain.holders import INJECTION, DeviceHolder, ProcessId
from oma.domain.world import serial_of
from oma.ports import Cloud, Volumes
from ossea.client import CloudStack
from ossea.credentials import Endpoint
from ossea.simulator.admin_client import AdminClient
from ossea.simulator.model import FaultKind, Settings
from tests.fakes.cloud import FakeCloud
from tests.fakes.time_and_ids import FastClock
from tests.fakes.volumes import FakeVolumes
from tests.fakes.world import OMA_VM_ID, FakeWorld
from tests.unit.volume_daemon.children import INJECTION_SCRIPT, child, hung_script, id_of
from volume_daemon.client import VolumeDaemonClient

KEY, SECRET = "contract-key", "contract-secret"
TIME_SCALE = 0.02
HOST = "127.0.0.1"


class Side(Protocol):
    """What a conformance test needs besides the port itself."""

    @property
    def cloud(self) -> Cloud: ...

    @property
    def volumes(self) -> Volumes: ...

    async def seed(self, **rows: Any) -> None: ...

    async def add_vm_snapshot(self, vm_id: str) -> None: ...

    async def tag_volume(self, volume_id: str, key: str, value: str) -> None:
        """As another installation does it."""

    async def fault(self, kind: FaultKind, command: str, **more: Any) -> None: ...

    async def lose_answer(self, command: str, **match: str) -> None:
        """The next call of this command is executed, its answer lost."""

    async def count(self, command: str, volume_id: str) -> int:
        """How often CloudStack was asked for this change of this volume."""

    async def count_jobs(self, command: str, entity_id: str) -> int:
        """How many jobs CloudStack has made of this change of this volume or snapshot."""

    async def is_exported(self, volume_id: str) -> bool:
        """Whether the volume has an NBD export on the OMA."""

    def hold(self, volume_id: str, name: str) -> AbstractAsyncContextManager[Held]:
        """A program of this name has the volume's device open on the OMA, in itself and in a child."""


@dataclass(frozen=True)
class Held:
    """The process that was started, and whether it is still there."""

    process: ProcessId
    lives: Callable[[], bool]


@dataclass
class FakeSide:
    world: FakeWorld
    cloud: FakeCloud
    volumes: FakeVolumes

    async def seed(self, **rows: Any) -> None:
        self.world.seed(**rows)

    async def add_vm_snapshot(self, vm_id: str) -> None:
        self.world.add_vm_snapshot(vm_id)

    async def tag_volume(self, volume_id: str, key: str, value: str) -> None:
        words: dict[str, Any] = {"tags[0].key": key, "tags[0].value": value}
        job_id = self.world.order("createTags", str(uuid4()), resourceids=volume_id, resourcetype="Volume", **words)
        await self.world.wait_until_ended(job_id)

    async def fault(self, kind: FaultKind, command: str, **more: Any) -> None:
        self.world.add_fault(kind, command, **more)

    async def lose_answer(self, command: str, **match: str) -> None:
        del match
        self.cloud.weather.lose_answers.append(command)

    async def count(self, command: str, volume_id: str) -> int:
        return sum(order.volume_id == volume_id for order in self.world.accepted(command))

    async def count_jobs(self, command: str, entity_id: str) -> int:
        orders = self.world.accepted(command)
        return sum(entity_id in {order.volume_id, order.snapshot_id} for order in orders)

    async def is_exported(self, volume_id: str) -> bool:
        return self.volumes.exported.get(volume_id, False)

    @asynccontextmanager
    async def hold(self, volume_id: str, name: str) -> AsyncIterator[Held]:
        seen = [hold_fake(number, name) for number in (4711, 4712)]
        held = self.volumes.holders.setdefault(volume_id, [])
        held += seen
        root = ProcessId(4711, 100)
        yield Held(root, lambda: any(one in seen for one in self.volumes.holders.get(volume_id, ())))
        self.volumes.holders[volume_id] = [one for one in self.volumes.holders.get(volume_id, ()) if one not in seen]


@dataclass
class RealSide:
    admin: AdminClient
    cloud: CloudStackCloud
    volumes: VolumeDaemonVolumes
    device_root: Path
    nbd_dir: Path
    client: CloudStack

    async def seed(self, **rows: Any) -> None:
        await self.admin.seed(**rows)

    async def add_vm_snapshot(self, vm_id: str) -> None:
        await self.admin.add_vm_snapshot(vm_id)

    async def tag_volume(self, volume_id: str, key: str, value: str) -> None:
        submitted = self.client.create_tags([volume_id], "Volume", {key: value}, job_id=str(uuid4()), expires_at=None)
        await self.client.wait_job(await submitted)

    async def fault(self, kind: FaultKind, command: str, **more: Any) -> None:
        await self.admin.add_fault(command, kind.value, **more)

    async def lose_answer(self, command: str, **match: str) -> None:
        await self.admin.add_fault(command, FaultKind.LOST_ANSWER.value, match=match)

    async def count(self, command: str, volume_id: str) -> int:
        calls = await self.admin.calls(changes_only=True)
        return sum(call["command"] == command and call["params"].get("id") == volume_id for call in calls)

    async def count_jobs(self, command: str, entity_id: str) -> int:
        calls = await self.admin.calls(changes_only=True)
        return sum(
            call["command"] == command and call["params"].get("id") == entity_id and call["jobid"] is not None
            for call in calls
        )

    async def is_exported(self, volume_id: str) -> bool:
        found = [path.read_text() for path in self.nbd_dir.iterdir()]
        return any(f"virtio-{serial_of(volume_id)}" in text for text in found)

    @asynccontextmanager
    async def hold(self, volume_id: str, name: str) -> AsyncIterator[Held]:
        with TemporaryDirectory() as folder:
            script = hung_script(Path(folder) / name)
            opened = child(script, self.device_root / f"virtio-{serial_of(volume_id)}")
            process = await asyncio.to_thread(opened.__enter__)
            try:
                yield Held(seen_as(process), lambda: process.poll() is None)
            finally:
                await asyncio.to_thread(opened.__exit__, None, None, None)


def hold_fake(pid: int, name: str) -> DeviceHolder:
    """As the Volume Daemon tells of it."""
    is_injection = name == INJECTION_SCRIPT
    return DeviceHolder(
        "process",
        name,
        process=ProcessId(pid, 100),
        command=f"/bin/bash {name}",
        role=INJECTION if is_injection else "unknown",
        tree=ProcessId(4711, 100) if is_injection else None,
        endable=is_injection,
        why_not=None if is_injection else "it belongs to no driver injection that is known here",
    )


def seen_as(process: Popen[str]) -> ProcessId:
    seen = id_of(process)
    return ProcessId(seen.pid, seen.start_ticks)


@asynccontextmanager
async def fake_side() -> AsyncIterator[FakeSide]:
    world = FakeWorld(FastClock(1 / TIME_SCALE), Settings())
    side = FakeSide(world, FakeCloud(world), FakeVolumes(world))
    world.start()
    try:
        yield side
    finally:
        await side.volumes.close()
        await world.close()


class Processes:
    """`ossea-sim` and `volume-daemon` on loopback, on a database of their own; they serve any event loop."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.device_root = directory / "by-id"
        self.nbd_dir = directory / "nbd"
        simulator = ["serve", "--host", HOST, "--port", "0", "--admin-port", "0", "--devices", "file"]
        simulator += ["--state-dir", str(directory / "cloud"), "--device-root", str(self.device_root)]
        simulator += ["--oma-vm-id", OMA_VM_ID, "--api-key", KEY, "--secret-key", SECRET]
        self.simulator = Program("ossea-sim", simulator, directory)
        config = ["--config", str(directory / "oma.toml")]
        self.volume_daemon = Program("volume-daemon", ["serve", *config], directory)

    def start(self) -> None:
        self.device_root.mkdir()
        self.nbd_dir.mkdir()
        asyncio.run(self.simulator.start())
        self._prepare()
        asyncio.run(self.volume_daemon.start())

    def stop(self) -> None:
        for program in (self.volume_daemon, self.simulator):
            asyncio.run(program.stop())

    @property
    def api_url(self) -> str:
        return f"{self.simulator.url}/client/api"

    def _prepare(self) -> None:
        url = f"sqlite:///{self._directory / 'oma.db'}"
        upgrade(url)
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(insert(ossea_configs).values(name="main", oma_vm_id=OMA_VM_ID, is_active=True))
        engine.dispose()
        uuid_path = self._directory / "product_uuid"
        uuid_path.write_text(f"{OMA_VM_ID}\n")
        sections: Mapping[str, Mapping[str, Any]] = {
            "database": {"url": url},
            "cloudstack": {"url": self.api_url, "api_key": KEY, "secret_key": SECRET, "poll_max_s": 0.1},
            "volume_daemon": {
                "port": 0,
                "device_root": str(self.device_root),
                "nbd_config_dir": str(self.nbd_dir),
                "product_uuid_path": str(uuid_path),
                # Some machines hide their first process even from root; what the tests start is readable.
                "holder_scope": "readable",
            },
        }
        (self._directory / "oma.toml").write_text(as_toml(sections))


@asynccontextmanager
async def real_side(processes: Processes) -> AsyncIterator[RealSide]:
    endpoint = Endpoint(processes.api_url, KEY, SECRET)
    async with (
        AdminClient(processes.simulator.listening["admin"]) as admin,
        CloudStack(endpoint, poll_min_s=0.01, poll_max_s=0.1) as client,
        VolumeDaemonClient(processes.volume_daemon.url) as daemon,
    ):
        await admin.put_settings(time_scale=TIME_SCALE)
        await admin.clear_faults()
        yield RealSide(
            admin,
            CloudStackCloud(client),
            VolumeDaemonVolumes(daemon),
            processes.device_root,
            processes.nbd_dir,
            client,
        )
