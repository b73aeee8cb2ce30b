"""All commands by their lower-case name."""

from __future__ import annotations

from ossea.simulator.model.commands.async_jobs import JobView, ListAsyncJobs, QueryAsyncJobResult
from ossea.simulator.model.commands.attach_volume import AttachVolume
from ossea.simulator.model.commands.base import Command
from ossea.simulator.model.commands.catalogue import FIXED_LISTS, ListApis, ListCapabilities
from ossea.simulator.model.commands.create_snapshot import CreateSnapshot
from ossea.simulator.model.commands.delete_snapshot import DeleteSnapshot
from ossea.simulator.model.commands.detach_volume import DetachVolume
from ossea.simulator.model.commands.hosts import ListHosts, ListProjects
from ossea.simulator.model.commands.lists import (
    ListEvents,
    ListSnapshots,
    ListTags,
    ListVirtualMachines,
    ListVmSnapshot,
    ListVolumes,
)
from ossea.simulator.model.commands.revert_snapshot import RevertSnapshot
from ossea.simulator.model.commands.tags import CreateTags, DeleteTags
from ossea.simulator.model.commands.vm_life import DeployVirtualMachine, DestroyVirtualMachine, RecoverVirtualMachine
from ossea.simulator.model.commands.vm_power import StartVirtualMachine, StopVirtualMachine
from ossea.simulator.model.commands.volumes import CreateVolume, DeleteVolume


def build_commands(job_view: JobView) -> dict[str, Command]:
    """The table of commands; `job_view` shows a job with its command's Java class."""
    commands: dict[str, Command] = {}
    every: tuple[Command, ...] = (
        AttachVolume(),
        DetachVolume(),
        CreateVolume(),
        DeleteVolume(),
        CreateSnapshot(),
        RevertSnapshot(),
        DeleteSnapshot(),
        StartVirtualMachine(),
        StopVirtualMachine(),
        DeployVirtualMachine(),
        DestroyVirtualMachine(),
        RecoverVirtualMachine(),
        CreateTags(),
        DeleteTags(),
        ListVolumes(),
        ListSnapshots(),
        ListVirtualMachines(),
        ListVmSnapshot(),
        ListTags(),
        ListEvents(),
        ListHosts(),
        ListProjects(),
        QueryAsyncJobResult(job_view),
        ListAsyncJobs(job_view),
        ListCapabilities(),
        ListApis(commands.values),
        *FIXED_LISTS,
    )
    commands.update({command.name.lower(): command for command in every})
    return commands
