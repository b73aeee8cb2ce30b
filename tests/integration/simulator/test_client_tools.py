"""The genuine `cs` tool and apache-libcloud's CloudStack driver work against the simulator."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from libcloud.compute.base import StorageVolume
from libcloud.compute.drivers.cloudstack import CloudStackNodeDriver
from libcloud.compute.types import NodeState, StorageVolumeState

from ossea.simulator.admin_client import AdminClient
from tests.integration.simulator.process import KEY, OMA, S1, SECRET, V1, V2, VM, Sim


async def run(sim: Sim, command: str, *arguments: str) -> Any:
    code, answer, errors = await asyncio.to_thread(sim.cs, command, *arguments)
    assert code == 0, errors
    return answer


async def test_the_cs_tool(admin: AdminClient, shared_sim: Sim) -> None:
    volumes = await run(shared_sim, "listVolumes")
    assert {volume["id"] for volume in volumes["volume"]} == {V1, V2}
    attached = await run(shared_sim, "attachVolume", f"id={V1}", f"virtualmachineid={VM}", "deviceid=0")
    assert attached["volume"]["type"] == "ROOT"
    assert (await run(shared_sim, "startVirtualMachine", f"id={VM}"))["virtualmachine"]["state"] == "Running"
    code, answer, errors = await asyncio.to_thread(shared_sim.cs, "detachVolume", f"id={V1}")
    assert code == 1
    assert "Root volume detach can happen only when vm is in states" in str(answer) + errors
    assert (await run(shared_sim, "stopVirtualMachine", f"id={VM}"))["virtualmachine"]["state"] == "Stopped"
    assert "virtualmachineid" not in (await run(shared_sim, "detachVolume", f"id={V1}"))["volume"]
    snapshot = (await run(shared_sim, "createSnapshot", f"volumeid={V1}", "name=PhilB Test machine"))["snapshot"]
    assert (snapshot["state"], snapshot["name"]) == ("BackedUp", "PhilB Test machine")
    await admin.write(V1, fill="injected")
    await run(shared_sim, "revertSnapshot", f"id={snapshot['id']}")
    assert await admin.volume_hash(V1) == await admin.snapshot_hash(S1)
    assert await run(shared_sim, "deleteSnapshot", f"id={snapshot['id']}") == {"success": True}
    tags = await run(
        shared_sim,
        "createTags",
        f"resourceids={V1}",
        "resourcetype=Volume",
        "tags[0].key=oma-cleanup",
        "tags[0].value=x",
    )
    assert tags == {"success": True}
    assert (await run(shared_sim, "destroyVirtualMachine", f"id={VM}"))["virtualmachine"]["state"] == "Destroyed"
    code, answer, _ = await asyncio.to_thread(shared_sim.cs, "--post", "listVolumes", "id=unknown")
    assert (code, answer["listvolumesresponse"]["errorcode"]) == (1, 431)


async def test_a_tilde_in_a_value_breaks_the_cs_tools_signature(admin: AdminClient, shared_sim: Sim) -> None:
    code, answer, _ = await asyncio.to_thread(shared_sim.cs, "listVolumes", "name=a~b")
    assert (code, answer["listvolumesresponse"]["errorcode"]) == (1, 401)


async def test_libcloud(admin: AdminClient, shared_sim: Sim) -> None:
    await asyncio.to_thread(walk_libcloud, shared_sim)
    assert (await admin.state())["vms"][VM]["state"] == "Destroyed"


def walk_libcloud(sim: Sim) -> None:
    driver = CloudStackNodeDriver(KEY, SECRET, secure=False, url=sim.api)
    vars(driver.connection)["poll_interval"] = 0.05
    nodes = {node.id: node for node in driver.list_nodes()}
    assert (nodes[OMA].state, nodes[VM].state) == (NodeState.RUNNING, NodeState.STOPPED)
    assert [location.name for location in driver.list_locations()] == ["OSSEA-Zone"]
    assert driver.list_sizes()
    assert driver.list_images()
    volumes = {volume.id: volume for volume in driver.list_volumes()}
    assert driver.attach_volume(nodes[VM], volumes[V2])
    assert state_of(driver, V2) == StorageVolumeState.INUSE
    with pytest.raises(Exception, match="Please specify a volume that is not attached to any VM"):
        driver.attach_volume(nodes[VM], volumes[V2])
    assert driver.detach_volume(volumes[V2])
    assert state_of(driver, V2) == StorageVolumeState.AVAILABLE
    snapshot = driver.create_volume_snapshot(volumes[V2])
    assert snapshot.id in {row.id for row in driver.list_snapshots()}
    assert driver.destroy_volume_snapshot(snapshot)
    created = driver.create_volume(1, "libcloud")
    assert driver.destroy_volume(created)
    assert driver.ex_stop(nodes[OMA]) == "Stopped"
    assert driver.ex_create_tags([V1], "Volume", {"owner": "libcloud"})
    assert driver.destroy_node(nodes[VM])


def state_of(driver: CloudStackNodeDriver, volume_id: str) -> object:
    volume: StorageVolume = driver.ex_get_volume(volume_id)
    return volume.state
