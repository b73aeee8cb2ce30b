"""The algorithm that users have today, for comparison: volume after volume, each operation polled every two seconds."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from database.tables import ossea_configs
from oma.demo.stack import Stack
from oma.demo.story import CONFIG, SeededVm
from ossea.client import CloudStack
from ossea.credentials import Endpoint


async def clean_up_serially(stack: Stack, vm: SeededVm, *, poll_s: float) -> None:
    """Detach, revert, delete and attach one volume after the other; it checks nothing, which is its trouble."""
    async with aiohttp.ClientSession(stack.volume_daemon.url) as daemon, await _cloud(stack) as cloud:
        for disk in vm.disks:
            await _operate(daemon, f"/api/v1/volumes/{disk.volume_id}/detach", {}, poll_s)
        for disk in vm.disks:
            await _job(cloud, await cloud.revert_snapshot(disk.snapshot_id), poll_s)
            await _job(cloud, await cloud.delete_snapshot(disk.snapshot_id), poll_s)
        for disk in vm.disks:
            body = {"vm_id": stack.oma_vm_id}
            await _operate(daemon, f"/api/v1/volumes/{disk.volume_id}/attach", body, poll_s)


async def _cloud(stack: Stack) -> CloudStack:
    query = ossea_configs.select().where(ossea_configs.c.name == CONFIG)
    row = await stack.door.read(lambda connection: connection.execute(query).one())
    return CloudStack(Endpoint(row.api_url, row.api_key, row.secret_key), timeout_s=10.0, expires_s=60.0)


async def _operate(daemon: aiohttp.ClientSession, path: str, body: dict[str, Any], poll_s: float) -> None:
    async with daemon.post(path, json=body) as response:
        operation = await response.json()
    while operation["status"] not in ("completed", "failed", "cancelled"):
        await asyncio.sleep(poll_s)
        async with daemon.get(f"/api/v1/operations/{operation['id']}") as response:
            operation = await response.json()
    if operation["status"] != "completed":
        raise RuntimeError(f"{path} ended {operation['status']}: {operation['error']}")


async def _job(cloud: CloudStack, job_id: str, poll_s: float) -> None:
    while not (await cloud.query_job(job_id)).ended:  # noqa: ASYNC110 - polling is what is measured
        await asyncio.sleep(poll_s)
