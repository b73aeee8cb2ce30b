"""listHosts and listProjects."""

from __future__ import annotations

from typing import Any

from ossea.simulator.model import catalog
from ossea.simulator.model.commands.base import SyncCommand, known_row
from ossea.simulator.model.entities import Host, Project
from ossea.simulator.model.listing import page_json
from ossea.simulator.model.params import Params
from ossea.simulator.model.world import World

_PAGING = ("page", "pagesize", "listall", "keyword")


class ListHosts(SyncCommand):
    """For administrators; setting `denied_commands` takes it from the key."""

    name = "listHosts"
    optional = (*_PAGING, "id", "name", "state", "type", "zoneid", "hypervisor")

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        rows = list(world.hosts.rows.values())
        if params.find("id"):
            rows = [known_row(world.hosts, params)]
        for name in ("name", "state"):
            wanted = params.find(name)
            rows = [host for host in rows if wanted is None or getattr(host, name) == wanted]
        fixed = {"type": "Routing", "zoneid": catalog.ZONE_ID, "hypervisor": "KVM"}
        if any(params.find(name) not in {None, value} for name, value in fixed.items()):
            rows = []
        return page_json("host", rows, params, world.settings, _host_json)


class ListProjects(SyncCommand):
    name = "listProjects"
    optional = (*_PAGING, "id", "name", "state")

    def answer(self, world: World, params: Params) -> dict[str, Any]:
        rows = list(world.projects.newest_first())
        if params.find("id"):
            rows = [known_row(world.projects, params)]
        wanted = params.find("name")
        rows = [project for project in rows if wanted is None or project.name == wanted]
        return page_json("project", rows, params, world.settings, _project_json)


def _host_json(host: Host) -> dict[str, Any]:
    return {
        "id": host.id,
        "name": host.name,
        "state": host.state,
        "type": "Routing",
        "resourcestate": "Enabled",
        "zoneid": catalog.ZONE_ID,
        "zonename": catalog.ZONE_NAME,
        "hypervisor": "KVM",
        "ipaddress": "10.0.0.11",
    }


def _project_json(project: Project) -> dict[str, Any]:
    return {
        "id": project.id,
        "name": project.name,
        "displaytext": project.name,
        "domainid": catalog.DOMAIN_ID,
        "domain": catalog.DOMAIN,
        "state": "Active",
        "tags": [],
    }
