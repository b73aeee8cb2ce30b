"""The lists of what never changes, listCapabilities and listApis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ossea.simulator.model import catalog
from ossea.simulator.model.commands.base import AsyncCommand, Command, SyncCommand
from ossea.simulator.model.listing import page_json
from ossea.simulator.model.params import Params
from ossea.simulator.model.world import World

_OPTIONAL = (
    "page",
    "pagesize",
    "id",
    "name",
    "keyword",
    "zoneid",
    "listall",
    "available",
    "templatefilter",
    "projectid",
)


class FixedList(SyncCommand):
    """A list of rows that never change, filtered by id and name."""

    optional = _OPTIONAL

    def __init__(self, name: str, key: str, rows: Sequence[dict[str, Any]]) -> None:
        self.name = name  # type: ignore[misc]  # one class, a name for each of its objects
        self._key = key
        self._rows = rows

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        rows: Iterable[dict[str, Any]] = self._rows
        row_id = params.find("id")
        if row_id is not None:
            rows = [row for row in rows if row["id"] == row_id.lower()]
        name = params.find("name")
        if name is not None:
            rows = [row for row in rows if row.get("name") == name]
        return page_json(self._key, list(rows), params, world.settings, dict)


class ListCapabilities(SyncCommand):
    """An object, not a list."""

    name = "listCapabilities"

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        del params
        return {"capability": catalog.capabilities(world.settings.version)}


class ListApis(SyncCommand):
    """Every command with its parameters; `customjobid` is accepted and not listed, as in CloudStack."""

    name = "listApis"
    optional = ("name",)

    def __init__(self, commands: Callable[[], Iterable[Command]]) -> None:
        self._commands = commands

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        wanted = params.find("name")
        allowed = [command for command in self._commands() if not world.settings.denies(command.name)]
        items = [_api_json(command) for command in allowed if wanted is None or command.name == wanted]
        return {"count": len(items), "api": items} if items else {}


def _api_json(command: Command) -> dict[str, Any]:
    return {
        "name": command.name,
        "description": command.name,
        "isasync": isinstance(command, AsyncCommand),
        "params": [
            {"name": name, "required": name in command.required, "type": "string"}
            for name in (*command.required, *command.optional)
        ],
    }


FIXED_LISTS: tuple[FixedList, ...] = (
    FixedList("listZones", "zone", catalog.ZONES),
    FixedList("listDiskOfferings", "diskoffering", catalog.DISK_OFFERINGS),
    FixedList("listServiceOfferings", "serviceoffering", catalog.SERVICE_OFFERINGS),
    FixedList("listTemplates", "template", catalog.TEMPLATES),
    FixedList("listNetworks", "network", catalog.NETWORKS),
    FixedList("listOsTypes", "ostype", catalog.OS_TYPES),
    FixedList("listPublicIpAddresses", "publicipaddress", ()),
    FixedList("listPortForwardingRules", "portforwardingrule", ()),
    FixedList("listIpForwardingRules", "ipforwardingrule", ()),
)
