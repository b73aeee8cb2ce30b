"""Whether a VM was ever started, as CloudStack's event log tells it; what can't be told counts as started.

Source: `DeployVMCmd` writes VM.CREATE for the entity ("creating Vm") and VM.CREATE again for the deployment, whose text
says "starting Vm" where it starts the VM. `DeployVMCmd.getEventDescription` puts that text into the scheduled line in
any case, also with `startvm=false`; only the lines that follow it (`UserVmManagerImpl.startVirtualMachine`) tell a
start. Events are purged after `event.purge.delay` days, so a log without the VM's own VM.CREATE is not the whole story.
`listEvents` takes `resourceid` since 4.17.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from oma.domain.evidence import VmHistory
from oma.domain.world import CloudVm, VmEvent

CREATE: Final = "VM.CREATE"
DESTROY: Final = "VM.DESTROY"
RECOVER: Final = "VM.RECOVER"
SCHEDULED: Final = "Scheduled"
STANDING_STATES: Final = frozenset({"Stopped", "Destroyed", "Expunging", "Error"})
"""States that a VM may be in that was never started."""
QUIET_EVENTS: Final = frozenset(
    {DESTROY, RECOVER, "VM.EXPUNGE", "VM.UPDATE", "VM.UPGRADE", "VM.RESETPASSWORD", "VM.RESETSSHKEY"}
)
"""Events about a VM that say nothing of a start; every other one that begins with `VM.` presumes it."""


@dataclass(frozen=True, slots=True)
class StartedOrNot:
    """`sentence`: by what it is known, a part of a sentence."""

    started: bool
    sentence: str
    certain: bool = True


def was_started(vm: CloudVm, history: VmHistory | None) -> StartedOrNot:
    if vm.state not in STANDING_STATES:
        return StartedOrNot(started=True, sentence=f"it is {vm.state}")
    if history is None or not isinstance(history.events, tuple):
        reason = "nobody asked" if history is None or isinstance(history.events, tuple) else history.events.reason
        return StartedOrNot(True, f"whether it was ever started can't be told ({reason})", certain=False)
    for event in history.events:
        if _tells_a_start(event):
            return StartedOrNot(started=True, sentence=f"CloudStack's event log shows {event.type}{_when(event.at)}")
    if not any(event.type == CREATE for event in history.events):
        why = "whether it was ever started can't be told: CloudStack's event log no longer reaches back to its creation"
        return StartedOrNot(started=True, sentence=why, certain=False)
    return StartedOrNot(started=False, sentence="CloudStack's event log shows its creation and no start")


def destroyed_at(history: VmHistory | None) -> datetime | None:
    """When it was destroyed; None where that can't be told.

    By the first destroy after the last recovery: CloudStack counts from when the VM became Destroyed, and whoever asks
    for it once more only adds a line to the log.
    """
    if history is None or not isinstance(history.events, tuple):
        return None
    recovered = max((event.at for event in history.events if event.type == RECOVER and event.at), default=None)
    times = [event.at for event in history.events if event.type == DESTROY and event.at is not None]
    return min((at for at in times if recovered is None or at > recovered), default=None)


def _tells_a_start(event: VmEvent) -> bool:
    if event.type == CREATE:
        return "starting" in event.text.lower() and event.state != SCHEDULED
    return event.type.startswith("VM.") and event.type not in QUIET_EVENTS


def _when(at: datetime | None) -> str:
    return f" at {at.isoformat(timespec='seconds').replace('+00:00', 'Z')}" if at else ""
