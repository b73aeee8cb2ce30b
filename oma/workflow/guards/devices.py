"""Guards about the OMA's own devices: what they show and who holds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from oma.domain.errors import Code, Refusal
from oma.domain.evidence import Evidence
from oma.domain.holders import DeviceHolder, DeviceHolders
from oma.domain.records import VolumeRecord
from oma.domain.states import VolumePlace
from oma.domain.world import Unanswered, VolumeFacts
from oma.workflow.guards.places import command_with, places
from oma.workflow.holding import (
    how_to_let_go,
    how_to_see,
    may_be_ended,
    name_holders,
    unended_injections,
    unread_words,
)
from oma.workflow.revert_need import revert_need

REASON: Final = "the injection hangs"
"""What the pasteable command gives as its reason; a person writes a better one."""


def device_agrees(evidence: Evidence) -> Iterator[Refusal]:
    """Detached means detached everywhere: CloudStack and the OMA must tell the same story."""
    for volume, facts, place in places(evidence):
        if place in (VolumePlace.DETACHED, VolumePlace.ON_TEST_VM) and facts.on_oma is True:
            held = facts.holders.holders if isinstance(facts.holders, DeviceHolders) else ()
            by = f" It is held by {name_holders(held)}." if held else ""
            yield Refusal(
                Code.STATE_UNKNOWN,
                f"CloudStack shows {volume.volume_name} as {place.value}, but the OMA still shows its device.{by}",
                "Something may still hold it open. See who does, and let it go before anything is reverted: "
                f"curl http://127.0.0.1:8090/api/v1/volumes/{volume.volume_id}/holders",
                {"volume_id": volume.volume_id, "holders": [one.as_json() for one in held]},
            )


def device_in_use(evidence: Evidence) -> Iterator[Refusal]:
    """Nothing is pulled away from under a holder: a device that the run would detach is held by nobody.

    A person's `end_holders` passes what may be ended: driver injections on exactly this device. Who holds a device
    must also be known where a replication never ended, whose writer may still be connected, and where a failover is
    open: a holder would be the reason for a revert.
    """
    replication_open = any(replication.is_open for replication in evidence.records.replications)
    failover_open = any(failover.is_open for failover in evidence.records.failovers)
    held: list[tuple[VolumeRecord, DeviceHolders]] = []
    for volume, facts, place in places(evidence):
        if place is not VolumePlace.ON_OMA or facts.on_oma is not True:
            # A device that should not be there is told of as such, with its holders.
            continue
        leaves = revert_need(evidence, facts, place).in_doubt
        if not (leaves or replication_open or failover_open):
            continue
        holders = facts.holders
        if not isinstance(holders, DeviceHolders) or not holders.complete:
            yield _unknown(evidence, volume, facts)
        elif leaves and holders.holders:
            held.append((volume, holders))
    in_the_way = {volume.volume_id: _in_the_way(evidence, holders) for volume, holders in held}
    for volume, holders in held:
        if in_the_way[volume.volume_id]:
            endable = all(may_be_ended(one) for _, every in held for one in every.holders)
            yield _in_use(evidence, volume, holders, everything_endable=endable)


def _in_the_way(evidence: Evidence, holders: DeviceHolders) -> list[DeviceHolder]:
    """Those that no word passes."""
    return [one for one in holders.holders if not (evidence.words.end_holders and may_be_ended(one))]


def _in_use(evidence: Evidence, volume: VolumeRecord, holders: DeviceHolders, *, everything_endable: bool) -> Refusal:
    in_the_way = _in_the_way(evidence, holders)
    return Refusal(
        Code.DEVICE_IN_USE,
        f"The device of {volume.volume_name} is held on the OMA by {name_holders(in_the_way)}; it is not taken away.",
        _end_them(evidence) if everything_endable else _close_them(evidence, holders.holders),
        {
            "volume_id": volume.volume_id,
            "volume_name": volume.volume_name,
            "holders": [one.as_json() for one in holders.holders],
            "scanned_at": holders.scanned_at.isoformat(),
        },
    )


def _end_them(evidence: Evidence) -> str:
    return (
        "It is this VM's own driver injection. Make sure that nobody waits for it, then have it ended and the VM "
        f"cleaned up: {_command(evidence)}"
    )


def _close_them(evidence: Evidence, holders: Sequence[DeviceHolder]) -> str:
    to_close = [one for one in holders if not may_be_ended(one)]
    steps = "; ".join(dict.fromkeys(how_to_let_go(one) for one in to_close))
    if not to_close:
        return (
            "Close what holds the VM's other devices first; then have this driver injection ended: "
            f"{_command(evidence)}"
        )
    rest = f" The driver injection can then be ended: {_command(evidence)}" if len(to_close) < len(holders) else ""
    return f"Close what holds it, then ask again: {steps}.{rest}"


def _command(evidence: Evidence) -> str:
    words = evidence.words
    return command_with(evidence, replace(words, end_holders=True, reason=words.reason or REASON))


def _unknown(evidence: Evidence, volume: VolumeRecord, facts: VolumeFacts) -> Refusal:
    holders = facts.holders
    unread = list(holders.unread) if isinstance(holders, DeviceHolders) else []
    injections = list(unended_injections(evidence))
    never = f" The driver injection of failover {', '.join(injections)} never reported its end." if injections else ""
    return Refusal(
        Code.STATE_UNKNOWN,
        f"Who holds the device of {volume.volume_name} on the OMA can't be told: {unread_words(holders)}.{never}",
        how_to_see(holders, volume.volume_id),
        {
            "volume_id": volume.volume_id,
            "unread": unread,
            "answer": holders.as_json() if isinstance(holders, Unanswered) else None,
            "seen": [one.as_json() for one in holders.holders] if isinstance(holders, DeviceHolders) else [],
            "unended_injections": injections,
        },
    )
