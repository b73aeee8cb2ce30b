"""Simulator, Volume Daemon and daemon as three real processes on loopback, with a directory of their own."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import func, insert, select
from sqlalchemy.engine import Connection

from database import schema
from database.door import Door
from database.tables import ossea_configs, vm_replication_contexts
from oma.demo.operator import Operator
from oma.demo.ports import HOST, USUAL_PORTS, PortClaims, Ports, choose_ports
from oma.demo.programs import Program
from oma.demo.story import CONFIG, RETIRED
from oma.demo.threads import in_thread
from ossea.credentials import Endpoint
from ossea.simulator.admin_client import AdminClient

OMA_VM_ID: Final = "0a11ce00-0000-4000-8000-000000000001"
RETIRED_OMA_ID: Final = "0a11ce00-0000-4000-8000-000000000002"
"""Last year's appliance: it is still there, and stopped."""
MOST_DISKS: Final = 1000
"""All VMs of the demo, and of a whole test session, share one OMA: more disks than a real one may have."""
REVERT_WINDOW_S: Final = 1
SETTLE_S: Final = 1
READY_TIMEOUT_S: Final = 30.0
READY_PAUSE_S: Final = 0.05


class StackFailed(Exception):
    """The stack can't be set up; the text says why."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """How the stack is set up. Without a directory it has a temporary one, which goes with it."""

    directory: Path | None = None
    database_url: str | None = None
    ports: Ports = USUAL_PORTS
    devices: str = "auto"
    simulator: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the simulator, as `PUT /settings` takes them."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Sections of the settings file, over the stack's own."""
    say: Callable[[str], None] = lambda _: None
    """Told a sentence when a port is taken."""


@dataclass(slots=True)
class Stack:
    """The running stack. `admin` drives the simulator, `door` the database, `operator` the daemon's public API."""

    directory: Path
    config: Path
    database_url: str
    device_root: Path
    nbd_dir: Path
    simulator: Program
    volume_daemon: Program
    oma: Program
    admin: AdminClient
    door: Door
    operator: Operator
    endpoint: Endpoint
    """The cloud as its owner's own tools reach it."""
    oma_vm_id: str = OMA_VM_ID

    async def ready(self) -> None:
        """Until the daemon says that it is ready. Raises `StackFailed`."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not await self.operator.is_ready():  # noqa: ASYNC110  another process tells nobody
                    await asyncio.sleep(READY_PAUSE_S)
        except TimeoutError:
            said = await asyncio.to_thread(self.oma.tail)
            raise StackFailed(f"oma is not ready after {READY_TIMEOUT_S:.0f} s: {said}") from None

    async def restart_oma(self, env: Mapping[str, str] | None = None) -> None:
        """The daemon stops and starts again, with these variables on top, and is ready."""
        await self.oma.restart(env)
        await self.ready()

    async def stop_programs(self) -> None:
        """From the outside in; each has drained before the next is asked."""
        for program in (self.oma, self.volume_daemon, self.simulator):
            await program.stop()


@asynccontextmanager
async def running_stack(options: StackOptions) -> AsyncIterator[Stack]:
    """Everything started and ready; at the end nothing runs, and a temporary directory is gone.

    Raises `StackFailed`, `ProgramFailed`, or what the database says.
    """
    async with AsyncExitStack() as exits:
        directory = options.directory
        if directory is None:
            directory = Path(tempfile.gettempdir()) / f"oma-demo-{secrets.token_hex(6)}"
            exits.push_async_callback(asyncio.to_thread, shutil.rmtree, directory, ignore_errors=True)
        claims = PortClaims()
        exits.callback(claims.close)
        ports = await in_thread(choose_ports, options.ports, options.say, claims)
        url = options.database_url or f"sqlite:///{directory / 'oma.db'}"
        key, secret = secrets.token_urlsafe(24), secrets.token_urlsafe(32)
        layout = await in_thread(_lay_out, directory, url, ports, options.settings)
        await in_thread(schema.upgrade, url)
        door = await Door.open(url, readers=2)
        exits.push_async_callback(door.close)
        await door.write(_require_empty)
        api_url = f"http://{HOST}:{ports.simulator}/client/api"
        await door.write(lambda connection: _seed_config(connection, api_url, key, secret))
        programs = _build_programs(layout, ports, options.devices, key, secret)
        exits.push_async_callback(_kill, programs)
        admin = await exits.enter_async_context(AdminClient(f"http://{HOST}:{ports.admin}"))
        operator = await exits.enter_async_context(Operator(f"http://{HOST}:{ports.oma}"))
        stack = Stack(
            directory=directory,
            config=layout.config,
            database_url=url,
            device_root=layout.device_root,
            nbd_dir=layout.nbd_dir,
            simulator=programs[0],
            volume_daemon=programs[1],
            oma=programs[2],
            admin=admin,
            door=door,
            operator=operator,
            endpoint=Endpoint(api_url, key, secret),
        )
        exits.push_async_callback(stack.stop_programs)
        for program in programs:
            await program.start()
        await admin.put_settings(**{"max_data_disks": MOST_DISKS, **options.simulator})
        await admin.seed(vms=[{"id": RETIRED_OMA_ID, "name": "retired-oma", "state": "Stopped"}])
        await stack.ready()
        yield stack


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie in the stack's directory."""

    directory: Path
    config: Path
    device_root: Path
    nbd_dir: Path


def _lay_out(directory: Path, url: str, ports: Ports, settings: Mapping[str, Mapping[str, Any]]) -> Layout:
    directory = directory.absolute()
    layout = Layout(directory, directory / "oma.toml", directory / "by-id", directory / "nbd")
    # It holds the key of the cloud: nobody else's business, even of a simulated one.
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (layout.device_root, layout.nbd_dir):
        folder.mkdir(exist_ok=True)
    sections: dict[str, dict[str, Any]] = {
        "database": {"url": url},
        "http": {"port": ports.oma},
        "oma": {"identity": "trust", "installation": "demo", "state_dir": str(directory)},
        # The simulator's hypervisor is at nothing any more once its job has ended.
        "recovery": {"revert_window_s": REVERT_WINDOW_S},
        "workflow": {"settle_s": SETTLE_S},
        "volume_daemon": {
            "url": f"http://{HOST}:{ports.volume_daemon}",
            "port": ports.volume_daemon,
            "device_root": str(layout.device_root),
            "nbd_config_dir": str(layout.nbd_dir),
            "oma_url": f"http://{HOST}:{ports.oma}",
            # Many machines hide their first process even from root; what the demo starts can be read.
            "holder_scope": "readable",
        },
    }
    for name, values in settings.items():
        sections.setdefault(name, {}).update(values)
    layout.config.touch(mode=0o600)
    layout.config.write_text(as_toml(sections), encoding="utf-8")
    return layout


def as_toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """JSON's texts, numbers, flags and lists are TOML's too."""
    lines: list[str] = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)


def _build_programs(layout: Layout, ports: Ports, devices: str, key: str, secret: str) -> list[Program]:
    simulator = ["serve", "--host", HOST, "--port", str(ports.simulator), "--admin-port", str(ports.admin)]
    simulator += ["--state-dir", str(layout.directory / "cloud"), "--device-root", str(layout.device_root)]
    simulator += ["--oma-vm-id", OMA_VM_ID, "--api-key", key, "--secret-key", secret, "--devices", devices]
    config = ["--config", str(layout.config)]
    return [
        Program("ossea-sim", simulator, layout.directory),
        Program("volume-daemon", ["serve", *config], layout.directory),
        Program("oma", ["serve", *config], layout.directory),
    ]


async def _kill(programs: list[Program]) -> None:
    """Whatever went wrong before: nothing is left running."""
    for program in reversed(programs):
        await program.kill()


def _require_empty(connection: Connection) -> None:
    """The demo makes up VMs, so it never does that beside real ones."""
    for table in (vm_replication_contexts, ossea_configs):
        if connection.execute(select(func.count()).select_from(table)).scalar_one():
            raise StackFailed(f"the database has rows in {table.name}; the demo only fills an empty one")


def _seed_config(connection: Connection, api_url: str, key: str, secret: str) -> None:
    """The active one, and last year's."""
    for name, oma_vm_id in ((CONFIG, OMA_VM_ID), (RETIRED, RETIRED_OMA_ID)):
        connection.execute(
            insert(ossea_configs).values(
                name=name,
                api_url=api_url,
                api_key=key,
                secret_key=secret,
                zone="zone-1",
                oma_vm_id=oma_vm_id,
                is_active=name == CONFIG,
            )
        )
