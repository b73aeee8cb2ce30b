"""How the simulated server behaves: durations, limits and the differences between CloudStack's versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ossea.simulator.model.generations import GENERATIONS

DEFAULT_DURATIONS_S: Mapping[str, float] = MappingProxyType(
    {
        "attachVolume": 3.0,
        "detachVolume": 3.0,
        "createVolume": 1.0,
        "createSnapshot": 5.0,
        "revertSnapshot": 5.0,
        "deleteSnapshot": 2.0,
        "startVirtualMachine": 6.0,
        "stopVirtualMachine": 4.0,
        "destroyVirtualMachine": 2.0,
        "deployVirtualMachine": 8.0,
        "createTags": 0.2,
        "deleteTags": 0.2,
    }
)

RESTART_MODES = ("resume", "fail", "fail_and_lose_volumes")


class SettingsFault(ValueError):
    """A setting that is unknown or out of its range; the text names it and says what is allowed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the simulator; the model reads the first part, the HTTP server the last.

    `durations` are seconds per command at `time_scale` 1.0; the model multiplies both.
    """

    durations: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_DURATIONS_S))
    time_scale: float = 1.0
    queue_per_vm: bool = True
    custom_job_id: bool = True
    custom_job_id_conflict_code: int = 431
    """What a `customjobid` in use answers: 431, on newer servers 530."""
    ids_parameter: bool = True
    """False: lists do not know `ids` and ignore it, as old servers do with every unknown parameter."""
    real_job_result_code: bool = False
    """A failed job's `jobresultcode` is the real one, as on newer servers; False: always 530."""
    event_resource: bool = True
    """Events name their resource and `listEvents` takes `resourceid`; False: neither, as on old servers."""
    deploy_says_starting: bool = False
    """The event that a deploy was scheduled says "starting Vm" also where it does not start the VM, as old servers'."""
    denied_commands: tuple[str, ...] = ()
    """Commands that the key's role may not call (432), e.g. `listHosts` or `createTags` for ordinary accounts."""
    max_data_disks: int = 64
    default_page_size: int = 500
    """CloudStack's `default.page.size`, which is also the largest page it serves; never above 500."""
    list_pending_jobs_only: bool = False
    """`listAsyncJobs` of newer servers leaves ended jobs out."""
    job_expire_s: float = 86_400.0
    job_cancel_s: float | None = None
    """After this long a pending job is marked failed while the hypervisor works on (3,600 on real servers)."""
    root_dies_at: str = "destroy"
    """When a VM's ROOT volumes go: at "destroy" (4.19 and later may), or only at "expunge"."""
    expunge_delay_s: float = 86_400.0
    revert_mode: str = "in_place"
    """A revert overwrites the volume's file "in_place", or puts another one in its place ("replace", newer servers)."""
    revert_under_running_vm: str = "refused"
    """A revert of a volume on a running VM is "refused", or it succeeds with "no_effect" (apache/cloudstack#4356)."""
    agent_wait_s: float = 1_800.0
    """How long an unforced stop that hangs is waited for (`wait`); `time_scale` multiplies it."""
    restart: str = "resume"
    """What becomes of pending jobs at a restart: "resume", "fail" as real servers do (the hypervisor works on, a revert
    leaves `RevertSnapshotting`), or "fail_and_lose_volumes", which also soft-deletes volumes of attach and detach jobs
    as 4.11 does."""
    version: str = "4.11.1.0"

    latency_s: float = 0.0
    clock_offset_s: float = 0.0
    """How far the server's clock, as its `Date` header shows it and `expires` is measured by, is ahead of ours."""
    signature_check: bool = True
    throttle_per_s: int | None = None
    """Requests per second and key (`api.throttling`); None: off, 25 where real servers have it on."""

    def duration_s(self, command: str) -> float:
        return self.durations.get(command, 0.0) * self.time_scale

    def denies(self, command: str) -> bool:
        return command.lower() in {denied.lower() for denied in self.denied_commands}

    def as_json(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values["durations"] = dict(self.durations)
        values["denied_commands"] = list(self.denied_commands)
        return values

    def patched(self, changes: Mapping[str, Any]) -> Settings:
        """These settings with `changes` put in; `durations` are merged by command.

        `generation` names a set of them (`GENERATIONS`), which the other changes complete.
        Raises `SettingsFault` for an unknown key or a value that cannot be.
        """
        values = dict(changes)
        generation = values.pop("generation", None)
        if generation is not None and generation not in GENERATIONS:
            raise SettingsFault(f"generation must be one of {', '.join(GENERATIONS)}")
        known = {f.name for f in dataclasses.fields(self)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise SettingsFault(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        values = {**GENERATIONS.get(generation or "", {}), **values}
        if "durations" in values:
            values["durations"] = {**self.durations, **_durations(values["durations"])}
        for key in values.keys() - {"durations"}:
            _check(key, values[key])
        if "denied_commands" in values:
            values["denied_commands"] = tuple(values["denied_commands"])
        return dataclasses.replace(self, **values)


_CHOICES: Mapping[str, tuple[object, ...]] = {
    "root_dies_at": ("destroy", "expunge"),
    "restart": RESTART_MODES,
    "revert_mode": ("in_place", "replace"),
    "revert_under_running_vm": ("refused", "no_effect"),
    "custom_job_id_conflict_code": (431, 530),
}
_FLAGS = frozenset(
    {
        "custom_job_id",
        "deploy_says_starting",
        "event_resource",
        "ids_parameter",
        "list_pending_jobs_only",
        "queue_per_vm",
        "real_job_result_code",
        "signature_check",
    }
)
_OPTIONAL = frozenset({"job_cancel_s", "throttle_per_s"})
_COUNTS: Mapping[str, tuple[int, int]] = {
    "max_data_disks": (0, 1000),
    "default_page_size": (1, 500),
    "throttle_per_s": (1, 1_000_000),
}
_SECONDS = frozenset({"time_scale", "job_expire_s", "job_cancel_s", "expunge_delay_s", "latency_s", "agent_wait_s"})


def _check(key: str, value: object) -> None:
    if value is None and key in _OPTIONAL:
        return
    if key in _CHOICES and value not in _CHOICES[key]:
        raise SettingsFault(f"{key} must be one of {', '.join(str(choice) for choice in _CHOICES[key])}")
    if key in _FLAGS and not isinstance(value, bool):
        raise SettingsFault(f"{key} must be true or false")
    if key in _COUNTS:
        low, high = _COUNTS[key]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise SettingsFault(f"{key} must be a whole number from {low} to {high}")
    if key in _SECONDS and not _is_seconds(value):
        raise SettingsFault(f"{key} must be a number, 0 or more")
    if key == "clock_offset_s" and (not isinstance(value, int | float) or isinstance(value, bool)):
        raise SettingsFault("clock_offset_s must be a number of seconds")
    if key == "version" and not isinstance(value, str):
        raise SettingsFault("version must be a text")
    if key == "denied_commands" and not _is_texts(value):
        raise SettingsFault("denied_commands must be a list of commands")


def _is_texts(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _durations(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise SettingsFault("durations must be an object of command: seconds")
    for command, seconds in value.items():
        if command not in DEFAULT_DURATIONS_S:
            raise SettingsFault(f"no duration for {command}; known are {', '.join(sorted(DEFAULT_DURATIONS_S))}")
        if not _is_seconds(seconds):
            raise SettingsFault(f"durations.{command} must be a number of seconds, 0 or more")
    return {command: float(seconds) for command, seconds in value.items()}
