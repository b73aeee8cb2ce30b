"""curl and the `oma` command against the running product, as an operator types them."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import select
from sqlalchemy.engine import Connection

from database.tables import ossea_configs
from oma.demo.checks import faults_of_a_cleaned_vm
from oma.demo.ledger import differences, last_call, read_ledger
from oma.demo.ports import Ports
from oma.demo.programs import clean_environment, find_command
from oma.demo.scenarios.parked import PARKED
from oma.demo.scenarios.refused import REFUSED
from oma.demo.stack import Stack, StackOptions, running_stack
from oma.demo.story import CONFIG, SECOND_VCENTER, SeededVm, VmStory
from oma.demo.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")

OMA = find_command("oma")

DONE, FAILED, USAGE, NOT_FOUND, REFUSED_BY_GUARD, NEEDS_RESOLUTION, UNREACHABLE = range(7)

# Word for word as existing users have them in their notes.
CURL_LINES = {
    "pgtest1": "curl -X POST http://localhost:8082/api/v1/failover/pgtest1/cleanup-failed",
    "PhilB Test machine": (
        'curl -X POST "http://localhost:8082/api/v1/failover/PhilB%20Test%20machine/cleanup-failed"'
    ),
}


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """On the standard ports where they are free, as the lines to be typed name them."""
    options = StackOptions(directory=tmp_path_factory.mktemp("commands"), ports=Ports(), simulator={"time_scale": 0.02})
    async with running_stack(options) as stack:
        yield World(stack)


async def run(*command: str, **variables: str) -> Said:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**clean_environment(), "NO_COLOR": "1", **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode())


async def oma(stack: Stack, *arguments: str) -> Said:
    return await run(OMA, *arguments, OMA_SERVER=stack.operator.url)


@pytest.mark.parametrize("name", CURL_LINES)
async def test_the_curl_line_puts_the_vm_right(world: World, name: str) -> None:
    vm = await world.seed(VmStory(name))
    before = await last_call(world.stack)
    port = world.stack.operator.url.rpartition(":")[2]
    line = CURL_LINES[name].replace("localhost:8082", f"localhost:{port}")

    said = await run("bash", "-c", line)

    assert said.code == 0, said.err
    answer = said.document
    assert answer["success"] is True
    assert answer["message"] == f"Failed execution cleanup completed for {name}"
    assert (answer["vm_name"], answer["replica"]) == (name, "ready")
    assert await faults_of_a_cleaned_vm(world, vm, after_call=before) == []


async def test_the_command_cleans_up_and_says_so(world: World) -> None:
    stack = world.stack
    vm = await world.seed(VmStory("by command", test_vm="Stopped"))
    before = await last_call(stack)
    listed = await oma(stack, "vms", "--needs-cleanup", "--json")
    assert vm.name in {one["vm_name"] for one in listed.document["items"]}

    said = await oma(stack, "cleanup", vm.name)

    assert said.code == DONE, said.err
    assert "ready" in said.out
    assert await faults_of_a_cleaned_vm(world, vm, after_call=before) == []
    jobs = await oma(stack, "jobs", "list", "--json")
    job_id = jobs.document["items"][0]["id"]
    for view in ("show", "log", "follow"):
        shown = await oma(stack, "jobs", view, job_id)
        assert shown.code == DONE, shown.err
        assert shown.out.strip()
    again = await oma(stack, "cleanup", vm.name)
    assert again.code == REFUSED_BY_GUARD


async def test_a_dry_run_of_the_command_changes_nothing(world: World) -> None:
    stack = world.stack
    vm = await world.seed(VmStory("dry by command", test_vm="Stopped"))
    ledger = await read_ledger(stack, vm)

    said = await oma(stack, "cleanup", "--dry-run", vm.name)

    assert said.code == DONE, said.err
    for disk in vm.disks:
        assert disk.name in said.out
    assert differences(ledger, await read_ledger(stack, vm)) == []


async def test_the_exit_code_says_how_it_ended(world: World) -> None:
    stack = world.stack
    parked, live = PARKED[2], REFUSED[0]
    await parked.seed(world)
    await live.seed(world)
    await world.seed(VmStory("namesake"))
    twin = await world.seed(VmStory("namesake", vcenter=SECOND_VCENTER, test_vm="Stopped"))

    assert (await oma(stack, "cleanup", parked.vm_name)).code == NEEDS_RESOLUTION
    assert (await oma(stack, "cleanup", parked.vm_name)).code == NEEDS_RESOLUTION
    assert (await oma(stack, "cleanup", live.vm_name)).code == REFUSED_BY_GUARD
    assert (await oma(stack, "cleanup", "no such vm")).code == NOT_FOUND
    assert (await oma(stack, "cleanup", "namesake")).code == REFUSED_BY_GUARD
    assert (await oma(stack, "cleanup", "namesake", "--context-id", twin.context_id)).code == DONE
    assert (await oma(stack, "cleanup", "namesake", "--phases", "make-coffee")).code == USAGE
    assert (await oma(stack, "jobs", "show", "no-such-job")).code == NOT_FOUND
    nobody = await run(OMA, "--server", "http://127.0.0.1:9", "vms")
    assert nobody.code == UNREACHABLE
    for said in (await oma(stack, "cleanup", live.vm_name), nobody):
        assert said.out.strip() == ""
        assert said.err.strip()


async def test_the_admin_commands_find_everything_well(world: World) -> None:
    stack = world.stack
    config = ("--config", str(stack.config))
    for command in (("db", "check"), ("db", "current"), ("db", "upgrade"), ("config", "verify"), ("doctor",)):
        said = await run(OMA, *config, *command, OMA_SERVER=stack.operator.url)
        assert said.code == DONE, f"{shlex.join(command)}: {said.out}{said.err}"


async def test_nothing_secret_is_said(world: World, broken: SeededVm) -> None:
    """Neither the logs nor any answer holds the key or the secret of the CloudStack account."""
    stack = world.stack
    await stack.operator.clean_up(broken.name)
    secrets = await stack.door.read(_read_secrets)
    shown = await run(OMA, "--config", str(stack.config), "config", "show")
    logs = [
        await asyncio.to_thread(program.log.read_text, encoding="utf-8")
        for program in (stack.oma, stack.volume_daemon, stack.simulator)
    ]
    assert broken.name in logs[0]
    texts = [shown.out, shown.err, *logs]
    for secret in secrets:
        assert not [text for text in texts if secret in text]


@pytest_asyncio.fixture(loop_scope="session")
async def broken(world: World) -> SeededVm:
    return await world.seed(VmStory("keeps its secrets", test_vm="Stopped"))


def _read_secrets(connection: Connection) -> tuple[str, ...]:
    query = select(ossea_configs.c.api_key, ossea_configs.c.secret_key).where(ossea_configs.c.name == CONFIG)
    return tuple(connection.execute(query).one())
