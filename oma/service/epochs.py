"""Is the database older than the world? Asked at each start, before anything is recovered, and again while runs go on;
refuses runs while it is.

Source: section 6 of the safety rules. What decides is `oma.domain.epochs`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from oma.domain.epochs import Epoch, EpochState, Older, Witness, find_older
from oma.domain.errors import Code, OmaError
from oma.domain.issues import DATABASE_OLDER, RESTORED, Issue, Severity, due_time
from oma.domain.jobs import Job
from oma.domain.states import IssueState
from oma.domain.verdict import shell_word
from oma.ports import Clock, Cloud, EpochNote, Epochs, Ids, UpstreamError
from oma.workflow.guards.marks import NOT_ALLOWED

CAUSE: Final = "database/older"
ALL_VMS: Final = "all VMs"
ACCEPT: Final = 'oma db accept-restore --reason "…"'
UNVERIFIED: Final = "401"
"""CloudStack's code where it does not believe who asks."""
RAISED_S: Final = 300.0
"""How often the epoch is raised at most while runs go on."""
TAG_PAUSE_S: Final = 30.0
"""Before a tag that could not be put is tried again: each time leaves two jobs at CloudStack."""


async def refuse_older(epochs: Epochs | None) -> None:
    """Raises `database_older_than_world`; without epochs, in parts of a program that keep none, never."""
    state = await epochs.read() if epochs is not None else None
    if state is not None and state.older_since is not None:
        raise OmaError(
            Code.DATABASE_OLDER_THAN_WORLD,
            f"{state.sentence} No run is begun.",
            older_since=state.older_since.isoformat(),
            next=f"Look at what was done since the copy; then: {ACCEPT}",
        )


@dataclass(frozen=True, slots=True)
class EpochPorts:
    """`note` None: nothing is remembered beside the database and CloudStack."""

    epochs: Epochs
    cloud: Cloud
    note: EpochNote
    clock: Clock
    ids: Ids


class EpochKeeper:
    """Compares the epochs at the start and raises them; `is_open` from then on, until the database turns out older.

    Once something has been written under an epoch that is older than `raised_s`, it is raised again, and no run begins
    before: else a copy of the whole appliance, its state directory included, would be as new as the tag.
    """

    def __init__(
        self,
        ports: EpochPorts,
        *,
        installation: str,
        owner: str,
        opened: Callable[[], None],
        raised_s: float = RAISED_S,
    ) -> None:
        self._ports = ports
        self._installation = installation
        self._owner = owner
        self._opened = opened
        self._raised_s = raised_s
        self._raised_at = 0.0
        self._raised_over = 0
        """The newest event when it was raised last."""
        self._number = 0
        self._tagged: set[str] = set()
        """Those that are asked and tagged no more: they carry our epoch, or our role may not look at it."""
        self._tag_later: dict[str, float] = {}
        """Not before this time."""
        self._noted = 0
        self.is_open = False
        self.wanted = asyncio.Event()
        """Set where a run waits for the next turn."""

    async def lets_begin(self) -> bool:
        """Whether runs may begin or be taken over now; raises `OmaError` `database_unavailable`."""
        if not self.is_open:
            return False
        if self._is_young():
            return True
        if not self._is_outdated(await self._ports.epochs.read()):
            return True
        self.wanted.set()
        return False

    async def run_once(self) -> str | None:
        """Says in a sentence what it found. Raises `OmaError` `database_unavailable`."""
        state = await self._ports.epochs.read()
        if state.older_since is not None:
            return await self._keep_closed(state)
        notes: list[str] = []
        begins = not self.is_open or self._is_outdated(state)
        if begins:
            self._forget_tags()
        try:
            seen, tags = await self._ask(state, notes)
        except UpstreamError as error:
            said = f"{error.upstream.system}: {error.upstream.text}"
            return f"What epoch the OMA's tag says can't be told; nothing is recovered before ({said})."
        # Read after the witnesses: what another daemon has raised while they were asked is not ahead of it.
        state = await self._ports.epochs.read()
        if state.older_since is not None:
            return await self._keep_closed(state)
        older = find_older(state, self._installation, seen)
        if older is not None:
            self._close()
            await self._mark(older)
            return older.sentence
        return await self._open(state, tags, notes, begins=begins)

    async def _keep_closed(self, state: EpochState) -> str:
        """What was queued meanwhile, or given back, is in flight too."""
        self._close()
        await self._mark(Older(state.sentence, ()))
        return state.sentence

    async def _ask(self, state: EpochState, notes: list[str]) -> tuple[list[Witness], dict[str, str | None]]:
        """What remembers an epoch, and what each tag says that was read; raises `UpstreamError` where one can't be.

        `notes` is told what is no witness here.
        """
        seen: list[Witness] = []
        if self.is_open:
            seen.append(Witness("this daemon", Epoch(self._installation, self._number).text, self._noted))
        else:
            try:
                noted = await self._ports.note.read()
            except OSError as error:
                notes.append(f"The state directory can't be read: {error.strerror}.")
            else:
                seen += [noted] if noted is not None else []
        now = self._ports.clock.monotonic()
        due = [vm_id for vm_id in state.oma_vm_ids if now >= self._tag_later.get(vm_id, now)]
        new = [vm_id for vm_id in due if vm_id not in self._tagged]
        tags: dict[str, str | None] = {}
        await asyncio.gather(*(self._find_tag(vm_id, tags, notes) for vm_id in new))
        seen += [Witness(f"the tag on the OMA VM {vm_id}", said) for vm_id, said in tags.items() if said is not None]
        return seen, tags

    async def _find_tag(self, vm_id: str, tags: dict[str, str | None], notes: list[str]) -> None:
        """A role that may not list tags has no such witness; silence and a failure are no answers."""
        try:
            tags[vm_id] = await self._ports.cloud.find_epoch(vm_id)
        except UpstreamError as error:
            if error.upstream.code not in NOT_ALLOWED:
                raise
            if error.upstream.code == UNVERIFIED:
                # Also what a wrong clock or key is told: then this is not answered either.
                await self._ports.cloud.list_vms([vm_id])
            self._tagged.add(vm_id)
            notes.append(f"The tag on the OMA VM {vm_id} can't be read: {error.upstream.text}.")

    async def _open(
        self, state: EpochState, tags: Mapping[str, str | None], notes: list[str], *, begins: bool
    ) -> str | None:
        """The database first: what is outside of it is never ahead of it by our own doing."""
        ports, written = self._ports, state.written
        if begins:
            self._number = await ports.epochs.raise_epoch(self._installation, self._owner, ports.clock.now())
        text = Epoch(self._installation, self._number).text
        if begins or written != self._noted:
            try:
                await ports.note.write(text, written)
            except OSError as error:
                notes.append(f"The state directory can't be written: {error.strerror}.")
            self._noted = written
        if not self.is_open:
            # A start waits for no tag: what was in flight is to go on at once.
            self._let_begin(written)
        for vm_id, former in tags.items():
            await self._tag(vm_id, former, notes)
        if begins:
            self._let_begin(written)
        if not begins and not notes:
            return None
        return " ".join([f"Epoch {text} begins." if begins else f"Epoch {text}.", *notes])

    def _let_begin(self, written: int) -> None:
        self._raised_at, self._raised_over = self._ports.clock.monotonic(), written
        self.is_open = True
        self._opened()

    def _is_young(self) -> bool:
        return self._ports.clock.monotonic() - self._raised_at < self._raised_s

    def _is_outdated(self, state: EpochState) -> bool:
        return not self._is_young() and state.written != self._raised_over

    async def _tag(self, vm_id: str, former: str | None, notes: list[str]) -> None:
        """In the place of what was read and compared, with the database's epoch of now: another daemon may have raised
        it since. What is not put there is tried again later, but by a role that may not.
        """
        number = (await self._ports.epochs.read()).number
        try:
            await self._ports.cloud.put_epoch(vm_id, Epoch(self._installation, number).text, former)
        except UpstreamError as error:
            notes.append(f"The OMA VM {vm_id} is not tagged with it: {error.upstream.text}.")
            if error.upstream.code not in NOT_ALLOWED:
                self._tag_later[vm_id] = self._ports.clock.monotonic() + TAG_PAUSE_S
                return
        self._tagged.add(vm_id)

    async def _mark(self, older: Older) -> None:
        ports, now = self._ports, self._ports.clock.now()
        await ports.epochs.mark_older(older, build_older_issue(older, ports.ids, ports.clock), now)

    def _close(self) -> None:
        self.is_open = False
        self._forget_tags()

    def _forget_tags(self) -> None:
        self._tagged.clear()
        self._tag_later.clear()


def build_older_issue(older: Older, ids: Ids, clock: Clock) -> Issue:
    """The one issue under which everything in flight is parked."""
    return Issue(
        id=ids.new_id(),
        cause=CAUSE,
        job_id=None,
        action_id=None,
        context_id=None,
        vm_name=ALL_VMS,
        kind=DATABASE_OLDER,
        code=Code.DATABASE_OLDER_THAN_WORLD.value,
        severity=Severity.CRITICAL,
        state=IssueState.OPEN,
        title=older.sentence,
        target={},
        evidence=older.as_json(),
        error=None,
        guidance=(
            "1. Find out which copy was restored, and when it was made: nothing done since then stands in it.",
            "2. If a newer copy is there, stop the daemon, restore that one and start again.",
            "3. Compare CloudStack with what the runs say, above all those that are parked: oma jobs list",
            f"4. Then say that you have looked; each parked run is then settled by itself: {ACCEPT}",
        ),
        opened_at=(now := clock.now()),
        due_at=due_time(Severity.CRITICAL, now),
    )


def build_restored_issue(job: Job, ids: Ids, clock: Clock) -> Issue:
    """Of a run that the restored copy had in flight."""
    issue_id, now = ids.new_id(), clock.now()
    return Issue(
        id=issue_id,
        cause=f"{job.id}/restored",
        job_id=job.id,
        action_id=None,
        context_id=job.context_id,
        vm_name=job.vm_name,
        kind=RESTORED,
        code=Code.DATABASE_OLDER_THAN_WORLD.value,
        severity=Severity.CRITICAL,
        state=IssueState.OPEN,
        title=f"The restored database had this run of {job.vm_name} in flight; how far it came since then it does not "
        "know.",
        target={},
        evidence={"phase": job.phase.value if job.phase is not None else None, "reverted": job.reverted},
        error=None,
        guidance=(
            f"1. See what the run meant to do, and compare it with CloudStack: oma jobs show {job.id}",
            f"2. If it is not to go on and nothing was reverted, take it back: oma jobs cancel {job.id}",
            (
                "3. If it may go on, say so; it looks at the world before each step: "
                f'oma audit fix -c {issue_id} --resolution ROLLED_BACK --notes "…"'
            ),
            f"4. In doubt about the disks of {shell_word(job.vm_name)}, make the replica again from the source.",
        ),
        opened_at=now,
        due_at=due_time(Severity.CRITICAL, now),
    )
