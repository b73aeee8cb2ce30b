"""What `oma config verify` and `oma doctor` look at: one finding per thing, each with what to do about it."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from sqlalchemy.engine import make_url

from appliance.settings import Settings
from database import schema
from database.errors import DatabaseUnavailable
from oma.adapters.volume_daemon import VolumeDaemonVolumes
from oma.cli.client import ApiProblem, Client, Unreachable
from oma.domain.errors import OmaError
from oma.ports import UpstreamError
from oma.runtime.cloudstack import CloudConnection
from oma.runtime.database import Database
from volume_daemon.client import VolumeDaemonClient

LONGEST_CHECK_S: Final = 15.0
PACKAGE: Final = "oma-cleanup"
OLDEST_PYTHON: Final = (3, 11)

DATABASE_ADVICE: Final = "Look at database.url and whether the server runs, then: oma db check"
CLOUDSTACK_ADVICE: Final = (
    "Look at the address and the keys: [cloudstack], the active row of ossea_configs, or cs's files."
)
VOLUMES_ADVICE: Final = "See whether it runs (systemctl status volume-daemon) and look at volume_daemon.url."
ROOT_ADVICE: Final = "This must be the OMA itself, or volume_daemon.device_root must name where its links are."
DAEMON_ADVICE: Final = "Start it (systemctl start oma), or name it with --server."


@dataclass(frozen=True, slots=True)
class Finding:
    """`advice` says what to do where it is not well."""

    name: str
    ok: bool
    sentence: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "ok": self.ok, "sentence": self.sentence, "advice": self.advice or None}


def check_connections(settings: Settings, env: Mapping[str, str]) -> list[Finding]:
    """Database, CloudStack and Volume Daemon, asked as the daemon would ask them; changes nothing."""
    return asyncio.run(_check_connections(settings, env))


async def _check_connections(settings: Settings, env: Mapping[str, str]) -> list[Finding]:
    database = Database(settings.database, lambda _: None)
    fresh = await asyncio.to_thread(schema.is_fresh_sqlite, settings.database.url)
    cloudstack = CloudConnection(settings.cloudstack, env, lambda: None if fresh else database.door, lambda *_: None)
    volumes = VolumeDaemonClient(settings.volume_daemon.url, timeout_s=settings.volume_daemon.timeout_s)
    try:
        found = [await _bounded("database", DATABASE_ADVICE, lambda: _check_database(settings, database, fresh=fresh))]
        found += await asyncio.gather(
            _bounded("cloudstack", CLOUDSTACK_ADVICE, lambda: _check_cloudstack(cloudstack)),
            _bounded("volume_daemon", VOLUMES_ADVICE, VolumeDaemonVolumes(volumes).check),
        )
        return found
    finally:
        await volumes.aclose()
        await cloudstack.close()
        await database.close()


async def _bounded(name: str, advice: str, ask: Callable[[], Awaitable[str | Finding]]) -> Finding:
    try:
        async with asyncio.timeout(LONGEST_CHECK_S):
            answer = await ask()
    except TimeoutError:
        return Finding(name, ok=False, sentence=f"No answer within {LONGEST_CHECK_S:g} s.", advice=advice)
    except (OmaError, UpstreamError, DatabaseUnavailable) as error:
        return Finding(name, ok=False, sentence=str(error), advice=advice)
    return answer if isinstance(answer, Finding) else Finding(name, ok=True, sentence=answer)


async def _check_database(settings: Settings, database: Database, *, fresh: bool) -> str | Finding:
    """A SQLite file that is not there yet is no fault: the daemon makes it. It must be possible to."""
    if fresh:
        return await asyncio.to_thread(_check_place_for_sqlite, settings.database.url)
    await database.open_once()
    return await database.jobs.check()


def _check_place_for_sqlite(url: str) -> Finding:
    path = Path(make_url(url).database or "")
    if path.parent.is_dir() and os.access(path.parent, os.W_OK | os.X_OK):
        return Finding("database", ok=True, sentence=f"{path} is not there yet; the daemon makes it when it starts.")
    return Finding(
        "database",
        ok=False,
        sentence=f"{path} can't be made: {path.parent} is missing or may not be written to.",
        advice=f"Make the directory for the daemon's user, or set database.url. Looked as uid {os.getuid()}.",
    )


async def _check_cloudstack(connection: CloudConnection) -> str:
    await connection.refresh()
    return await connection.cloud.check()


def check_device_root(settings: Settings) -> Finding:
    root = settings.volume_daemon.device_root
    try:
        links = [link for link in root.iterdir() if link.name.startswith("virtio-")]
    except OSError as error:
        sentence = f"{root} can't be read: {(error.strerror or str(error)).lower()}."
        return Finding("device_root", ok=False, sentence=sentence, advice=ROOT_ADVICE)
    return Finding("device_root", ok=True, sentence=f"{root} shows {len(links)} virtio device(s).")


def check_daemon(client: Client) -> list[Finding]:
    """Whether the daemon answers, is ready, and is of this command's version."""
    try:
        answer = client.get_root("/health")
        health = answer.body if isinstance(answer.body, dict) else {}
        running = client.get_root("/openapi.json").body["info"]["version"]
    except (Unreachable, ApiProblem, KeyError, TypeError) as error:
        sentence = str(error) if isinstance(error, Unreachable) else f"{client.server} is no OMA daemon."
        return [Finding("daemon", ok=False, sentence=sentence, advice=DAEMON_ADVICE), check_versions(None)]
    ready = bool(health.get("ready"))
    sentence = f"{client.server} is {health.get('status', 'there')}."
    if not ready:
        sentence = f"{client.server} is not ready: {health.get('reason')}"
    advice = "" if ready else "Look at its log: journalctl -u oma"
    return [Finding("daemon", ok=ready, sentence=sentence, advice=advice), check_versions(str(running))]


def check_versions(daemon_version: str | None) -> Finding:
    own, python = own_version(), platform.python_version()
    sentence = f"oma {own} on Python {python}" + (f", daemon {daemon_version}." if daemon_version else ".")
    if daemon_version is not None and daemon_version != own:
        return Finding("versions", ok=False, sentence=sentence, advice="Restart the daemon: systemctl restart oma")
    if tuple(int(part) for part in python.split(".")[:2]) < OLDEST_PYTHON:
        return Finding("versions", ok=False, sentence=sentence, advice="Python 3.11 or later is needed.")
    return Finding("versions", ok=True, sentence=sentence)


def own_version() -> str:
    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "unknown"
