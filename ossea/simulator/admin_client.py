"""The simulator's admin API as Python calls, for the demo, the tests and the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

Rows = Sequence[Mapping[str, Any]]


class AdminError(Exception):
    """The admin API refused; `status` is its HTTP status, the text its reason."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


class AdminClient:
    """Use as `async with AdminClient(base_url) as admin`; every method raises `AdminError` on a refusal."""

    def __init__(self, base_url: str, *, timeout_s: float = 60.0) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=self._timeout)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def reset(self) -> None:
        """Forget everything (entities, jobs, calls, faults, settings) but the OMA VM itself."""
        await self._call("POST", "/reset")

    async def seed(
        self,
        *,
        hosts: Rows = (),
        projects: Rows = (),
        vms: Rows = (),
        volumes: Rows = (),
        snapshots: Rows = (),
    ) -> dict[str, Any]:
        """Add entities; see docs/reference/simulator.md for the fields. Answers the ids that were given out."""
        rows = {"hosts": hosts, "projects": projects, "vms": vms, "volumes": volumes, "snapshots": snapshots}
        return await self._call("POST", "/seed", {name: list(given) for name, given in rows.items()})

    async def state(self) -> dict[str, Any]:
        """All entities by id: vms, volumes, snapshots, vm_snapshots, tags, jobs."""
        return await self._call("GET", "/state")

    async def volume_hash(self, volume_id: str) -> str:
        """SHA-256 of the volume's whole content, in hexadecimal."""
        answer = await self._call("GET", f"/volumes/{volume_id}/hash")
        return str(answer["sha256"])

    async def snapshot_hash(self, snapshot_id: str) -> str:
        answer = await self._call("GET", f"/snapshots/{snapshot_id}/hash")
        return str(answer["sha256"])

    async def read(self, volume_id: str, offset: int, length: int) -> bytes:
        async with self._open().get(
            f"{self._base_url}/volumes/{volume_id}/bytes", params={"offset": str(offset), "length": str(length)}
        ) as response:
            if response.status != 200:  # noqa: PLR2004
                raise AdminError(response.status, await response.text())
            return await response.read()

    async def write(
        self, volume_id: str, *, offset: int = 0, fill: str | None = None, hex_bytes: str | None = None
    ) -> None:
        """Write `hex_bytes` at `offset`, or content seeded by the text `fill` from `offset` to the end."""
        body: dict[str, Any] = {"offset": offset}
        if fill is not None:
            body["fill"] = fill
        if hex_bytes is not None:
            body["hex"] = hex_bytes
        await self._call("POST", f"/volumes/{volume_id}/write", body)

    async def patch_volume(self, volume_id: str, **fields: Any) -> dict[str, Any]:
        return await self._call("PATCH", f"/volumes/{volume_id}", fields)

    async def patch_vm(self, vm_id: str, **fields: Any) -> dict[str, Any]:
        return await self._call("PATCH", f"/vms/{vm_id}", fields)

    async def patch_host(self, host_id: str, **fields: Any) -> dict[str, Any]:
        return await self._call("PATCH", f"/hosts/{host_id}", fields)

    async def patch_snapshot(self, snapshot_id: str, **fields: Any) -> dict[str, Any]:
        return await self._call("PATCH", f"/snapshots/{snapshot_id}", fields)

    async def delete_volume(self, volume_id: str) -> None:
        """Soft-delete: it vanishes from all lists, its id still passes the parameter check."""
        await self._call("DELETE", f"/volumes/{volume_id}")

    async def release_device(self, volume_id: str) -> None:
        """Guests that kept the device of a detached volume lose it."""
        await self._call("POST", f"/volumes/{volume_id}/release-device")

    async def delete_snapshot(self, snapshot_id: str) -> None:
        await self._call("DELETE", f"/snapshots/{snapshot_id}")

    async def add_vm_snapshot(self, vm_id: str) -> str:
        """Give the VM a VM snapshot, which blocks attach, detach and revert. Answers its id."""
        answer = await self._call("POST", "/vm-snapshots", {"vm_id": vm_id})
        return str(answer["id"])

    async def delete_vm_snapshot(self, vm_snapshot_id: str) -> None:
        await self._call("DELETE", f"/vm-snapshots/{vm_snapshot_id}")

    async def add_event(self, vm_id: str, kind: str, **fields: Any) -> str:
        """Write into CloudStack's event log; `fields`: created, state, description, level. Answers the event's id."""
        answer = await self._call("POST", "/events", {"vm_id": vm_id, "type": kind, **fields})
        return str(answer["id"])

    async def purge_events(self, vm_id: str | None = None) -> int:
        """Events of one entity go, or all of them; answers how many."""
        answer = await self._call("DELETE", "/events" if vm_id is None else f"/events?vm_id={vm_id}")
        return int(answer["purged"])

    async def calls(self, after: int = 0, *, changes_only: bool = False) -> list[dict[str, Any]]:
        """API calls with `seq` above `after`, oldest first."""
        suffix = "&changes=1" if changes_only else ""
        answer = await self._call("GET", f"/calls?after={after}{suffix}")
        return list(answer["calls"])

    async def effects(self, after: int = 0) -> list[dict[str, Any]]:
        """What really happened to bytes and devices, with `seq` above `after`, oldest first."""
        answer = await self._call("GET", f"/effects?after={after}")
        return list(answer["effects"])

    async def get_settings(self) -> dict[str, Any]:
        return await self._call("GET", "/settings")

    async def put_settings(self, **settings: Any) -> dict[str, Any]:
        """Change the named settings only; answers all of them."""
        return await self._call("PUT", "/settings", settings)

    async def add_fault(self, command: str, kind: str, **fields: Any) -> None:
        """`fields`: times, match, errorcode, cserrorcode, errortext, delay_s, fraction, no_result."""
        await self._call("POST", "/faults", {"command": command, "kind": kind, **fields})

    async def faults(self) -> list[dict[str, Any]]:
        answer = await self._call("GET", "/faults")
        return list(answer["faults"])

    async def clear_faults(self) -> None:
        await self._call("DELETE", "/faults")

    async def restart_server(self, mode: str | None = None) -> None:
        """What a restart of the management server does to pending jobs (setting `restart`, or `mode`), in place."""
        await self._call("POST", "/restart", {} if mode is None else {"mode": mode})

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("AdminClient is used outside of its `async with` block")
        return self._session

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        async with self._open().request(method, f"{self._base_url}{path}", json=body) as response:
            answer = await response.json(content_type=None)
            if response.status >= 400:  # noqa: PLR2004
                raise AdminError(response.status, str(answer.get("detail", answer)))
            return dict(answer)
