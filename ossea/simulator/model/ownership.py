"""Whose an entity is, and which of them a list shows (`AccountManagerImpl.buildACLSearchParameters`).

The one key belongs to the account `admin`. Another account's entities are in no list. A project's entities are in
lists only that ask for projects by `projectid`; `listall` alone leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ossea.simulator.model import catalog
from ossea.simulator.model.entities import Event, Snapshot, Tag, Vm, VmSnapshot, Volume
from ossea.simulator.model.errors import invalid_entity
from ossea.simulator.model.params import Params
from ossea.simulator.model.world import World

ALL_PROJECTS = "-1"


def visible(world: World, rows: Iterable[Any], params: Params) -> list[Any]:
    """Rows that the caller may see; `projectid` -1 is all of its projects beside its own rows."""
    wanted = params.find("projectid")
    if wanted not in {None, ALL_PROJECTS} and world.projects.find(str(wanted).lower()) is None:
        raise invalid_entity(params.command, "projectid", str(wanted))
    shown = []
    for row in rows:
        account, project_id = owner_of(world, row)
        if account != catalog.ACCOUNT:
            continue
        if wanted == ALL_PROJECTS or project_id == (None if wanted is None else wanted.lower()):
            shown.append(row)
    return shown


def owner_of(world: World, row: object) -> tuple[str, str | None]:
    """Account and project; what hangs on an entity is its owner's."""
    match row:
        case Vm() | Volume():
            return row.account, row.project_id
        case Snapshot():
            volume = world.volumes.find(row.volume_id)
            return row.account, None if volume is None else volume.project_id
        case VmSnapshot():
            return owner_of(world, world.vms.find(row.vm_id))
        case Tag() | Event():
            return owner_of(world, _resource(world, row.resource_id))
        case _:
            return catalog.ACCOUNT, None


def owner_json(world: World, row: object) -> dict[str, Any]:
    account, project_id = owner_of(world, row)
    domain = {"domainid": catalog.DOMAIN_ID, "domain": catalog.DOMAIN}
    project = world.projects.find(project_id or "")
    if project is None:
        return {"account": account, **domain}
    return {"projectid": project.id, "project": project.name, **domain}


def _resource(world: World, resource_id: str | None) -> object:
    tables = (world.vms, world.volumes, world.snapshots)
    found = (table.find(resource_id or "") for table in tables)
    return next((row for row in found if row is not None), None)
