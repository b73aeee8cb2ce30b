"""The admin API: what it refuses and what it changes."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from ossea.simulator.admin_client import AdminClient, AdminError
from tests.integration.simulator.process import BIN, S1, V1, V2, VM, Sim
from tests.integration.simulator.wire import body, finish


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Host": "evil.example"},
    ],
)
async def test_pages_of_other_sites_are_refused(admin: AdminClient, shared_sim: Sim, headers: dict[str, str]) -> None:
    url = f"{shared_sim.admin}/reset"
    async with aiohttp.ClientSession() as session, session.post(url, headers=headers) as response:
        assert response.status == 403
        assert (await response.json())["code"] == "cross_site"
    assert VM in (await admin.state())["vms"]


BAD: list[tuple[str, str, Any]] = [
    ("POST", "/seed", {"planets": []}),
    ("POST", "/seed", {"vms": [{"name": ""}]}),
    ("POST", "/seed", {"volumes": [{"name": "x", "size_bytes": "1"}]}),
    ("POST", "/seed", {"volumes": [{"name": "x", "size_bytes": 1, "vm_id": "none"}]}),
    ("POST", "/seed", {"volumes": [{"id": V1, "name": "x", "size_bytes": 1}]}),
    ("POST", "/seed", {"snapshots": [{"volume_id": "none", "name": "x"}]}),
    ("PUT", "/settings", {"speed": 1}),
    ("PUT", "/settings", {"time_scale": -1}),
    ("PUT", "/settings", {"durations": {"attachvolume": 1}}),
    ("POST", "/faults", {"command": "attachVolume", "kind": "meteor"}),
    ("POST", "/faults", {"command": "launchRocket", "kind": "job_fail"}),
    ("PATCH", f"/volumes/{V1}", {"colour": "red"}),
    ("PATCH", f"/volumes/{V1}", {"size_bytes": "large"}),
    ("POST", f"/volumes/{V1}/write", {"offset": 0}),
    ("POST", "/restart", {"mode": "gently"}),
    ("POST", "/seed", [1]),
]


@pytest.mark.parametrize(("method", "path", "content"), BAD)
async def test_bad_input_is_named(admin: AdminClient, shared_sim: Sim, method: str, path: str, content: Any) -> None:
    url = f"{shared_sim.admin}{path}"
    before = await admin.state()
    async with aiohttp.ClientSession() as session, session.request(method, url, json=content) as response:
        assert response.status == 422
        assert (await response.json())["detail"]
    after = await admin.state()
    assert after["volumes"] == before["volumes"]
    assert after["snapshots"] == before["snapshots"]


async def test_unknown_entities_are_404(admin: AdminClient) -> None:
    for call in (admin.volume_hash("none"), admin.patch_vm("none", name="x"), admin.delete_volume("none")):
        with pytest.raises(AdminError) as refused:
            await call
        assert refused.value.status == 404


async def test_seeding_adds_and_patching_moves(admin: AdminClient, shared_sim: Sim) -> None:
    ids = await admin.seed(
        vms=[{"name": "other", "display_name": "Other VM"}],
        snapshots=[{"volume_id": V2, "name": "late", "created": "2026-01-02T03:04:05+00:00", "state": "BackingUp"}],
    )
    await admin.patch_volume(V2, vm_id=ids["vms"][0], device_id=0)
    volume = (await body(shared_sim.api, "listVolumes", id=V2))["volume"][0]
    assert (volume["type"], volume["vmname"], volume["vmdisplayname"]) == ("ROOT", "other", "Other VM")
    snapshot = (await body(shared_sim.api, "listSnapshots", volumeid=V2))["snapshot"][0]
    assert (snapshot["created"], snapshot["state"]) == ("2026-01-02T03:04:05+0000", "BackingUp")
    await admin.patch_volume(V2, vm_id=None)
    assert "virtualmachineid" not in (await body(shared_sim.api, "listVolumes", id=V2))["volume"][0]
    await admin.patch_snapshot(S1, volume_id=V2)
    assert "snapshot" not in await body(shared_sim.api, "listSnapshots", volumeid=V1)


async def test_a_deleted_volume_vanishes_from_lists_only(admin: AdminClient, shared_sim: Sim) -> None:
    await admin.delete_volume(V1)
    assert await body(shared_sim.api, "listVolumes", id=V1) == {}
    job = await finish(shared_sim.api, "detachVolume", id=V1)
    assert job["jobresult"]["errortext"] == f"Unable to find volume with ID: {V1}"
    assert len(await admin.volume_hash(V1)) == 64


async def test_vm_snapshots_block_and_unblock(admin: AdminClient, shared_sim: Sim) -> None:
    row = await admin.add_vm_snapshot(VM)
    job = await finish(shared_sim.api, "attachVolume", id=V1, virtualmachineid=VM)
    assert job["jobresult"]["errorcode"] == 431
    await admin.delete_vm_snapshot(row)
    assert (await finish(shared_sim.api, "attachVolume", id=V1, virtualmachineid=VM))["jobstatus"] == 1


async def test_effects_tell_what_really_happened(admin: AdminClient, shared_sim: Sim) -> None:
    last = (await admin.effects())[-1]["seq"]
    job = await finish(shared_sim.api, "revertSnapshot", id=S1)
    effects = await admin.effects(after=last)
    assert [(e["effect"], e["job_id"]) for e in effects] == [
        ("RevertStarted", job["jobid"]),
        ("ContentReverted", job["jobid"]),
    ]


async def test_a_restart_of_the_management_server_in_place(admin: AdminClient, shared_sim: Sim) -> None:
    job = (await body(shared_sim.api, "attachVolume", id=V1, virtualmachineid=VM))["jobid"]
    await admin.restart_server("fail_and_lose_volumes")
    assert (await body(shared_sim.api, "queryAsyncJobResult", jobid=job))["jobstatus"] == 2
    assert await body(shared_sim.api, "listVolumes", id=V1) == {}


def test_it_serves_on_loopback_only(tmp_path: Any) -> None:
    import subprocess  # noqa: PLC0415

    done = subprocess.run(
        [BIN / "ossea-sim", "serve", "--host", "0.0.0.0", "--state-dir", tmp_path, "--device-root", tmp_path,
         "--oma-vm-id", "x", "--api-key", "k", "--secret-key", "s"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "not a loopback address" in done.stderr
