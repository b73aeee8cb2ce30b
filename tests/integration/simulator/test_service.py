"""The simulator inside the test's own loop, where a blocking call of its code is an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ossea.simulator.service import Place, Simulator
from tests.integration.simulator.process import LINK, OMA, S1, SCENE, V1, V2, VM


@pytest.fixture
async def simulator(tmp_path: Path) -> AsyncIterator[Simulator]:
    simulator = Simulator(Place(tmp_path / "state", tmp_path / "by-id", OMA, "file"))
    await simulator.open()
    await simulator.put_settings({"time_scale": 0.02})
    await simulator.seed(**SCENE)
    yield simulator
    await simulator.close()


async def end_of(simulator: Simulator, job_id: str) -> int:
    while True:
        job = await simulator.call("queryAsyncJobResult", {"jobid": job_id}, ())
        if job["jobstatus"] != 0:
            return int(job["jobstatus"])
        await asyncio.sleep(0)


async def run(simulator: Simulator, command: str, **params: str) -> int:
    return await end_of(simulator, (await simulator.call(command, params, ()))["jobid"])


async def test_a_round_of_everything(simulator: Simulator, tmp_path: Path) -> None:
    clean = await simulator.volume_hash(V1)
    assert await run(simulator, "attachVolume", id=V1, virtualmachineid=OMA) == 1
    link = tmp_path / "by-id" / LINK
    assert await asyncio.to_thread(link.is_symlink)
    await simulator.write(V1, 0, "injected")
    assert await run(simulator, "detachVolume", id=V1) == 1
    assert not await asyncio.to_thread(link.is_symlink)
    assert await run(simulator, "revertSnapshot", id=S1) == 1
    assert await simulator.volume_hash(V1) == clean
    assert await run(simulator, "deleteSnapshot", id=S1) == 1
    await simulator.call("deleteVolume", {"id": V2}, ())
    assert await run(simulator, "destroyVirtualMachine", id=VM) == 1


async def test_a_job_of_no_duration_ends_after_its_bytes(simulator: Simulator) -> None:
    await simulator.put_settings({"time_scale": 0})
    await simulator.write(V1, 0, "injected")
    assert await run(simulator, "revertSnapshot", id=S1) == 1
    assert await simulator.volume_hash(V1) == await simulator.snapshot_hash(S1)


async def test_a_hundred_reverts_at_once(simulator: Simulator) -> None:
    rows = [{"name": f"v{n}", "size_bytes": 65_536, "fill": f"seed {n}"} for n in range(100)]
    volumes = (await simulator.seed(volumes=rows))["volumes"]
    clean = [await simulator.volume_hash(volume) for volume in volumes]
    kept = [{"volume_id": volume, "name": "s"} for volume in volumes]
    snapshots = (await simulator.seed(snapshots=kept))["snapshots"]
    for volume in volumes:
        await simulator.write(volume, 0, "injected")
    ends = await asyncio.gather(*(run(simulator, "revertSnapshot", id=snapshot) for snapshot in snapshots))
    assert set(ends) == {1}
    assert [await simulator.volume_hash(volume) for volume in volumes] == clean


async def test_lost_bytes_fail_the_revert(simulator: Simulator, tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "state" / "snapshots" / f"{S1}.img").unlink)
    assert await run(simulator, "revertSnapshot", id=S1) == 2


async def test_reset_in_the_middle_of_work(simulator: Simulator) -> None:
    await simulator.call("revertSnapshot", {"id": S1}, ())
    await simulator.reset()
    assert await simulator.call("listVolumes", {}, ()) == {}
    rows = (await simulator.call("listVirtualMachines", {}, ()))["virtualmachine"]
    assert [row["id"] for row in rows] == [OMA]
