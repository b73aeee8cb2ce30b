"""What the database keeps, as transactions in domain words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Mapping as MappingType
from datetime import datetime
from typing import Any, Protocol

from oma.domain.actions import Action
from oma.domain.asking import ContextFilter, IssueFilter, JobFilter, Page
from oma.domain.audit import AuditDraft, AuditEntry
from oma.domain.changes import ActionEnded, Change, JobCancelled, JobQueued, JobResumed
from oma.domain.controls import ControlChange, Pause
from oma.domain.epochs import EpochState, Older
from oma.domain.events import Event
from oma.domain.issues import Issue
from oma.domain.jobs import ClaimedJob, Job, Lease, LogLine, Step
from oma.domain.leaks import Leak
from oma.domain.records import VmContext, VmRecords
from oma.domain.remains import Remains
from oma.domain.resolving import IssueResolved, Settled
from oma.domain.undoing import CancelAsked
from oma.domain.watching import SlowJob


class Inventory(Protocol):
    """The existing records."""

    async def list_contexts_named(self, vm_name: str) -> tuple[Sequence[VmContext], Sequence[str]]:
        """Contexts whose name equals it code point by code point, and near matches' names (case, blanks)."""

    async def find_context(self, context_id: str) -> VmContext | None: ...

    async def get_records(self, context_id: str) -> VmRecords:
        """Everything about one VM, in one transaction; raises `OmaError` with `vm_not_found`."""

    async def list_records_of(self, context_ids: Sequence[str]) -> Sequence[VmRecords]:
        """The same for several VMs, in one transaction; those that exist."""

    async def list_known_volume_ids(self, volume_ids: Sequence[str]) -> Sequence[str]:
        """Those of the ids that any row of `ossea_volumes`, `device_mappings` or `vm_disks` knows, of any VM."""

    async def list_records(self, where: ContextFilter, limit: int, cursor: str | None) -> Page[VmRecords]:
        """The same for a page of VMs, by name, without a query per VM. A bad cursor is `invalid_request`."""


class JournalStore(Protocol):
    """What the journal and the worker write."""

    async def queue_job(self, queued: JobQueued) -> Job:
        """Inserts the job; raises `OmaError` `cleanup_in_progress` (job, holder), `needs_resolution`,
        or `ConcurrentChange` when `current_status` is no longer the plan's.
        """

    async def resume_job(self, resumed: JobResumed) -> Job:
        """Puts a parked job back into the queue; one that this very request resumed before is returned as it is.

        Raises `OmaError` `job_not_found`, `needs_resolution` (open issues that are not passed), `cleanup_in_progress`
        (it is queued or running), `invalid_request` (it has ended).
        """

    async def cancel_job(self, cancelled: JobCancelled) -> Job:
        """Notes that a person wants the run stopped; one that was never begun, or can't be begun any more, ends here.

        Raises `OmaError` `job_not_found`, and `invalid_request` for a run that has ended or can only go forward.
        """

    async def resolve_issue(self, resolved: IssueResolved) -> Settled:
        """A person's word about an issue; after the last open one of its VM its parked run goes back to the queue.

        Raises `OmaError` `issue_not_found`, `cleanup_in_progress` (its run is not parked), and `ConcurrentChange` where
        the issue or one of the actions no longer stands as it was judged.
        """

    async def find_cancel(self, job_id: str) -> CancelAsked | None:
        """Whether somebody wants this run to stop at its next safe point."""

    async def append_audit(self, drafts: Sequence[AuditDraft]) -> None:
        """Entries about what changed nothing else (a refusal, a dry run), in a transaction of their own.

        What a run does is audited by `queue_job`, `resume_job` and `apply` themselves, in their transactions.
        """

    async def claim_job(self, owner: str, lease_s: float) -> ClaimedJob | None:
        """The oldest queued job, or a running one whose lease ran out; its fence is raised."""

    async def renew_leases(self, owner: str, lease_s: float) -> Sequence[str]:
        """Prolongs every lease of this owner; returns the job ids still held."""

    async def apply(self, lease: Lease, changes: Sequence[Change], at: datetime) -> Sequence[Event]:
        """All changes and their events in one transaction, in order; raises `LeaseLost` or `ConcurrentChange`."""

    async def list_unmarkings(self, before: datetime) -> Sequence[Action]:
        """What ended runs meant to take off their volumes before that time, and is not proven yet; a bounded number."""

    async def end_unmarking(self, job_id: str, ended: ActionEnded, remote_id: str | None, at: datetime) -> None:
        """Its proof with its own job's id, after the run's own end and so under no lease.

        One that is proven already stays as it is.
        """

    async def open_world_issues(self, found: Sequence[Issue], at: datetime) -> Sequence[str]:
        """Opens issues about the world alone (`WORLD_KINDS`), one per cause; returns the ids of the open ones."""

    async def close_world_issues(
        self, context_id: str, kept: Sequence[str], sentence: str, evidence: MappingType[str, Any], at: datetime
    ) -> Sequence[str]:
        """Resolves those of this VM whose cause is not among `kept`, with what was observed; returns their ids."""


class JobReader(Protocol):
    """What queries read."""

    async def find_job(self, job_id: str) -> Job | None: ...

    async def find_job_by_key(self, idempotency_key: str) -> tuple[Job, str | None] | None:
        """The job that was queued under this key, letter by letter, with the hash of its request."""

    async def find_job_resumed_by(self, context_id: str, idempotency_key: str) -> Job | None:
        """The VM's newest run, where the call with this key resumed it last."""

    async def list_jobs(self, where: JobFilter, limit: int, cursor: str | None) -> Page[Job]:
        """Newest first."""

    async def list_steps(self, job_id: str) -> Sequence[Step]: ...

    async def list_actions(self, job_id: str) -> Sequence[Action]: ...

    async def find_remains(self, job_id: str) -> Remains | None: ...

    async def list_timed_actions(self) -> Sequence[Action]:
        """The proven actions of the newest completed runs, for how long each kind takes; a bounded number."""

    async def list_log(self, job_id: str, limit: int, cursor: str | None) -> Page[LogLine]:
        """Oldest first."""

    async def list_events(self, after_seq: int, job_id: str | None, limit: int) -> Sequence[Event]:
        """Oldest first, `seq` greater than `after_seq`."""

    async def last_event_seq(self) -> int: ...

    async def list_issues(self, *, job_id: str | None = None, context_id: str | None = None) -> Sequence[Issue]:
        """Open ones, oldest first."""

    async def find_issue(self, issue_id: str) -> Issue | None: ...

    async def find_next_issue(self) -> Issue | None:
        """The open one that is to be settled first: by severity, then by when it is due."""

    async def list_issue_page(self, where: IssueFilter, limit: int, cursor: str | None) -> Page[Issue]:
        """Newest first. A bad cursor is `invalid_request`."""

    async def list_audit(self, limit: int, cursor: str | None) -> Page[AuditEntry]:
        """Newest first."""

    async def list_leaks(self, *, context_id: str | None = None, job_id: str | None = None) -> Sequence[Leak]:
        """Open ones, oldest first."""

    async def count_jobs(self) -> MappingType[str, int]:
        """Jobs by state, active ones only."""

    async def check(self) -> str:
        """One sentence about the database; raises `OmaError` `database_unavailable`."""


class Controls(Protocol):
    """What people have paused."""

    async def list_pauses(self) -> Sequence[Pause]:
        """Those in force, oldest first."""

    async def pause(self, change: ControlChange) -> Pause:
        """One in force takes over the new reason. From the commit on no job that it covers is claimed."""

    async def lift(self, change: ControlChange) -> Pause | None:
        """The pause that was in force; None where there was none. Raises `ConcurrentChange`."""


class Epochs(Protocol):
    """How often a daemon has started on this database, and whether it is older than the world."""

    async def read(self) -> EpochState: ...

    async def raise_epoch(self, installation: str, owner: str, at: datetime) -> int:
        """The new epoch; raises `OmaError` `database_older_than_world` where that was found meanwhile."""

    async def mark_older(self, older: Older, issue: Issue, at: datetime) -> str:
        """Nothing is claimed any more and all in flight is parked under one open issue, whose id is returned.

        Without witnesses it is marked no more than it is: nothing is done, and '' returned, where it was accepted.
        """

    async def accept(self, reason: str, actor: str, build: Callable[[Job], Issue], at: datetime) -> tuple[int, int]:
        """A person has looked. Returns the epoch and how many runs stay parked, each under the issue that is built."""


class Watch(Protocol):
    """What the watcher reads and writes besides."""

    async def list_slow_jobs(self, before: datetime) -> Sequence[SlowJob]:
        """Our own jobs, queued or running and not paused, that have not ended since `before`; oldest first."""

    async def settle_watched(
        self, kind: str, new: Sequence[Issue], kept: Sequence[str], sentence: str, at: datetime
    ) -> tuple[int, int]:
        """Opens the new issues of one of the watcher's kinds, and resolves those whose cause is neither new nor `kept`.

        Returns how many were opened and resolved; `sentence` says why they are resolved.
        """


class Peers(Protocol):
    """Other daemons on the same database, as their leases show them."""

    async def list_owners(self) -> Sequence[str]:
        """Whoever holds a lease that has not run out."""

    async def end_leases(self, owner: str) -> int:
        """For an owner that is known to be dead: its leases run out now; how many."""
