"""createTags and deleteTags: one transaction each, all or none (`TaggedResourceManagerImpl`)."""

from __future__ import annotations

from typing import Any

from ossea.simulator.model.catalog import ACCOUNT
from ossea.simulator.model.commands.base import AsyncCommand, Order
from ossea.simulator.model.entities import Job, Tag
from ossea.simulator.model.errors import failed, missing_parameter, not_allowed, refused
from ossea.simulator.model.params import Params
from ossea.simulator.model.world import World

_LONGEST = 255
RESOURCE_TYPES = {"volume": "Volume", "snapshot": "Snapshot", "uservm": "UserVm"}


class _TagCommand(AsyncCommand):
    required = ("resourceids", "resourcetype")

    def accept(self, world: World, params: Params) -> Order:
        del world  # whether the resources exist is looked up by the job
        return Order(
            None,
            {
                "ids": [value.lower() for value in params.ids("resourceids")],
                "type": params.get("resourcetype"),
                "tags": params.rows("tags"),
            },
        )

    def check(self, world: World, job: Job) -> str | None:
        kind = RESOURCE_TYPES.get(job.params["type"].lower())
        if kind is None:
            raise refused(f"Invalid resource type: {job.params['type']}")
        for resource_id in job.params["ids"]:
            owner = _owner(world, kind, resource_id)
            if owner is None:
                raise refused(f"Unable to find resource by id {resource_id} and type {kind}")
            if owner != ACCOUNT:
                raise not_allowed(ACCOUNT, owner)
        job.params["kind"] = kind
        return None


class CreateTags(_TagCommand):
    name = "createTags"
    java_class = "org.apache.cloudstack.api.command.user.tag.CreateTagsCmd"
    event = "CREATE_TAGS"
    optional = ("tags", "customer")

    def accept(self, world: World, params: Params) -> Order:
        rows = params.rows("tags")
        if not rows:
            raise missing_parameter(self.name, "tags")
        for row in rows:
            if not row.get("key"):
                raise refused("Unable to create tag: its key is empty")
            if "value" not in row:
                raise refused(f"Value for the key {row['key']} is either null or empty")
            if max(len(row["key"]), len(row["value"])) > _LONGEST:
                raise refused(f"Key and value of a tag may have {_LONGEST} characters")
        return super().accept(world, params)

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        wanted = [
            Tag(
                f"{job.params['kind']}/{resource_id}/{row['key']}",
                job.params["kind"],
                resource_id,
                row["key"],
                row["value"],
            )
            for resource_id in job.params["ids"]
            for row in job.params["tags"]
        ]
        there = next((tag for tag in wanted if world.tags.find(tag.id) is not None), None)
        if there is not None or len({tag.id for tag in wanted}) < len(wanted):
            key = wanted[0].key if there is None else there.key
            resource = wanted[0].resource_id if there is None else there.resource_id
            raise failed(f"tag {key} already on {job.params['kind']} with id {resource}")
        for tag in wanted:
            world.add_tag(tag)
        return {"success": True}


class DeleteTags(_TagCommand):
    """Without `tags` all go; with a key only that one, with a value only where it is the same."""

    name = "deleteTags"
    java_class = "org.apache.cloudstack.api.command.user.tag.DeleteTagsCmd"
    event = "DELETE_TAGS"
    optional = ("tags",)

    def finish(self, world: World, job: Job) -> dict[str, Any]:
        rows = job.params["tags"]
        found = [
            tag
            for resource_id in job.params["ids"]
            for tag in world.tags_of(resource_id)
            if not rows or any(_fits(tag, row) for row in rows)
        ]
        if not found:
            raise failed("Failed to delete tags")
        for tag in found:
            world.drop_tag(tag)
        return {"success": True}


def _fits(tag: Tag, row: dict[str, str]) -> bool:
    return row.get("key") == tag.key and row.get("value") in {None, "", tag.value}


def _owner(world: World, kind: str, resource_id: str) -> str | None:
    """The account that it is; None: there is no such resource."""
    find = {"Volume": world.live_volume, "Snapshot": world.live_snapshot, "UserVm": world.live_vm}[kind]
    row = find(resource_id)
    return None if row is None else row.account
