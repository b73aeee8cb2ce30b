"""What is judged, as values: what CloudStack got, what it showed then, what the journal says, and what is there now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from oma.demo.invariants.journal import Journal
from ossea.simulator.model.witness import Sighting


@dataclass(frozen=True, slots=True)
class Call:
    """A changing call that reached CloudStack."""

    number: int
    """Its place among them, from 1."""
    at: float
    """Unix seconds, by the world's clock."""
    command: str
    request_id: str
    """The `customjobid` that it came with, also where the server ignores it."""
    params: Mapping[str, str]
    job_id: str | None
    """The job that it became; None: it was refused."""
    seen: Sighting
    after_seq: int | None = None
    """The last event of the journal that was told when it came; None: not known, times are compared instead."""
    sent_at: float | None = None
    """When the OMA daemon sent it, or asked the Volume Daemon for it, last before it came; None: not known."""
    fence: int | None = None
    """Of the lease under which the Volume Daemon was asked for it."""

    @property
    def accepted(self) -> bool:
        return self.job_id is not None

    @property
    def volume_id(self) -> str | None:
        return self.seen.volume_id

    @property
    def snapshot_id(self) -> str | None:
        return self.seen.snapshot_id

    @property
    def vm_id(self) -> str | None:
        """The VM that it is about: named by it, or the volume's holder."""
        return self.seen.vm_id

    @property
    def words(self) -> str:
        return f"{self.command} no. {self.number}"


@dataclass(frozen=True, slots=True)
class Ended:
    at: float
    succeeded: bool


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """A volume as it ought to end."""

    volume_id: str
    name: str
    good: str
    """Its content at the snapshot: a word or a hash."""
    disk_id: str
    change_id: str | None
    """From where its next replication goes on."""
    snapshot_ids: tuple[str, ...] = ()
    needs_revert: bool | None = None
    """Whether it left the OMA or was injected into, as it was seeded; None: not to be told, the plan is believed."""
    tracked_ids: tuple[str, ...] = ()
    """Its snapshots that a complete clean-up deletes, whatever the plan says."""


@dataclass(frozen=True, slots=True)
class VmFacts:
    """A VM as it was seeded: what of the cloud is its own."""

    context_id: str
    name: str
    volumes: tuple[VolumeFacts, ...]
    test_vm_id: str | None
    """The VM that its failover made; None: it made none."""
    other_vm_ids: tuple[str, ...] = ()
    """VMs that the failover made as well, or that nobody recorded."""
    test_vm_goes: bool = True
    """Whether a complete clean-up removes that VM."""

    @property
    def vm_ids(self) -> frozenset[str]:
        return frozenset(one for one in (self.test_vm_id, *self.other_vm_ids) if one is not None)

    @property
    def volume_ids(self) -> frozenset[str]:
        return frozenset(one.volume_id for one in self.volumes)

    @property
    def snapshot_ids(self) -> frozenset[str]:
        return frozenset(snapshot_id for one in self.volumes for snapshot_id in one.snapshot_ids)


@dataclass(frozen=True, slots=True)
class VolumeAtRest:
    """`vm_id` by CloudStack; `shown_on_oma` by the OMA; `mode` is its mapping's, None without one."""

    vm_id: str | None
    shown_on_oma: bool
    content: str
    mode: str | None
    exported: bool | None
    """Whether it has an NBD export; None: not known."""


@dataclass(frozen=True, slots=True)
class Rest:
    """The world when nothing moves any more."""

    volumes: Mapping[str, VolumeAtRest]
    vm_states: Mapping[str, str]
    """VMs that are there, Destroyed ones too."""
    snapshot_ids: frozenset[str]
    """Those that CloudStack lists."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """Volume or snapshot → the value of the marker that it carries."""


@dataclass(frozen=True)
class History:
    """Everything about one world from its seeding to its rest."""

    oma_vm_id: str
    vms: Sequence[VmFacts]
    calls: Sequence[Call]
    """In the order in which CloudStack got them."""
    ends: Mapping[str, Ended]
    """CloudStack job → its end; absent: it has none yet, or nobody knows."""
    journal: Journal
    rest: Rest
    told: Sequence[tuple[int, str]] = ()
    """Number and sentence of every event that a listener was told, by whatever process."""
    others: frozenset[str] = frozenset()
    """Ids of calls that somebody else is known to have sent."""
    forgotten: frozenset[str] = frozenset()
    """Ids that a restored database does not know: their calls were ours and are judged, but no journal has them."""
    older: Sequence[tuple[float, float]] = ()
    """Times in which the database was an older copy that something outside of it gave away, until a person had looked.
    """
    window_s: float | None = None
    """For how long the hypervisor may work at a revert after its job has ended without proof; None: nobody waits."""
    honours_ids: bool = True
    """Whether CloudStack takes `customjobid`; where it does not, the network alone can make two of one call."""
    remembers_s: float = 86_400.0
    """How long CloudStack knows a job; a success that nobody asked for within that time is no proof any more."""
    disturbed: frozenset[str] = frozenset()
    """Volumes that somebody else wrote to or took after they had come to rest; their content and place tell nothing."""
    taken: frozenset[str] = frozenset()
    """Contexts whose records somebody else changed; their status tells nothing."""
    known: frozenset[str] = field(default_factory=frozenset)
    """Volumes that any record of any VM knows."""

    @cached_property
    def own_calls(self) -> tuple[Call, ...]:
        return tuple(call for call in self.calls if call.request_id not in self.others)

    @cached_property
    def accepted(self) -> tuple[Call, ...]:
        return tuple(call for call in self.own_calls if call.accepted)

    @cached_property
    def owners(self) -> Mapping[str, VmFacts]:
        """Volume, snapshot or test VM → whose it is."""
        found: dict[str, VmFacts] = {}
        for vm in self.vms:
            found |= dict.fromkeys((*vm.volume_ids, *vm.snapshot_ids, *vm.vm_ids), vm)
        return found

    def end_of(self, call: Call) -> Ended | None:
        return self.ends.get(call.job_id) if call.job_id is not None else None

    def is_proven(self, revert: Call, at: float) -> bool:
        """Whether its own job had succeeded by then."""
        end = self.end_of(revert)
        return end is not None and end.succeeded and end.at <= at

    def was_provable(self, revert: Call, at: float) -> bool:
        """Whether its own job had succeeded by then, and could be asked for whatever answer got lost."""
        return self.is_proven(revert, at) and self.honours_ids and at - revert.at < self.remembers_s

    def window_of(self, revert: Call) -> tuple[float, float] | None:
        """When its job ended and until when the hypervisor may work on, if that proved nothing; None: no end."""
        end = self.end_of(revert)
        return None if end is None else (end.at, end.at + (self.window_s or 0.0))

    def owner_of(self, call: Call) -> VmFacts | None:
        """The VM for which it was sent, by the journal; else the one whose things it names."""
        action = self.journal.find_action(call.request_id)
        if action is not None:
            context_id = self.journal.jobs[action.job_id].context_id
            return next((vm for vm in self.vms if vm.context_id == context_id), None)
        named = (call.volume_id, call.snapshot_id, call.vm_id, *call.seen.resource_ids)
        return next((vm for one in named if one is not None and (vm := self.owners.get(one)) is not None), None)


@dataclass(frozen=True, slots=True)
class Violation:
    invariant: str
    vm_name: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.vm_name}: {self.sentence} [{self.invariant}]"
