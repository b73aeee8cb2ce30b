"""The rules that decide between safe and dangerous, and who keeps each: data, from which the reference page is made.

A rule's id stands on the tests (`@pytest.mark.rule`) and on the demo's scenarios, so that the page can name them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    """`kept_by` names what keeps it, as dotted paths; empty where it is for a later version, which `yet` explains."""

    id: str
    sentence: str
    kept_by: tuple[str, ...]
    yet: str = ""

    @property
    def section(self) -> int:
        return int(self.id.partition("-")[0])


GUARDS = "oma.workflow.guards"
PHASES = "oma.workflow.phases"

SECTIONS: Final = {
    1: "What the OMA is",
    2: "What may be cleaned at all",
    3: "Who holds a device",
    4: "Detached means detached everywhere",
    5: "Which volume is reverted, and to what",
    6: "Nobody else meanwhile",
    7: "The test VM",
    8: "Kinds of actions",
    9: "What never happens",
}

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "1-config",
        "The OMA is the `oma_vm_id` of the configuration that the volumes' rows name, or of the single active one; "
        "where that can't be told, nothing is cleaned.",
        (f"{GUARDS}.records.oma_is_proven", "oma.workflow.observe.choose_config"),
    ),
    Rule(
        "1-identity",
        "Before anything is attached, CloudStack shows the OMA Running and this appliance proves to be it: by its "
        "DMI UUID in either byte order, else by its volumes, else only by `oma.identity = trust`.",
        (f"{GUARDS}.records.oma_is_proven", "oma.workflow.identity.oma_problem"),
    ),
    Rule(
        "2-reads-first",
        "Guards run first and only read: a refusal and a dry run leave nothing but their audit entry.",
        ("oma.service.cleanup.plan_cleanup",),
    ),
    Rule(
        "2-handshake",
        "The job's transaction sets `cleanup_required` only over the status that was observed, and phase 1 runs "
        "every guard again.",
        ("oma.store.queueing.queue_job", f"{PHASES}.analyze.run"),
    ),
    Rule(
        "2-all-refusals",
        "All refusals are told; the code is the first in the order of precedence.",
        (f"{GUARDS}.judge",),
    ),
    Rule(
        "2-not-knowing",
        "A guard whose evidence is missing refuses in its own place as `state_unknown`.",
        (f"{GUARDS}.records.answers_are_complete",),
    ),
    Rule(
        "2-records",
        "A VM has at least one disk; disks and volumes belong to each other one to one; no other VM claims a volume.",
        (f"{GUARDS}.records.records_are_whole",),
    ),
    Rule(
        "2-listed",
        "CloudStack lists every volume, in accounts and projects; one that it no longer lists is an alarm.",
        (f"{GUARDS}.volumes.volumes_are_ours",),
    ),
    Rule(
        "2-needs-cleanup",
        "One function says whether a VM needs a clean-up; where there is no reason, there is `nothing_to_clean`.",
        ("oma.workflow.needs.needs_cleanup", f"{GUARDS}.records.something_to_clean"),
    ),
    Rule(
        "2-alive-failover",
        "A failover or rollback with a sign of life in its JobLog, or a pending CloudStack job on its VM or "
        "volumes, is left alone; the plan says which sign, or since when it is dead.",
        (f"{GUARDS}.failovers.operation_in_progress", "oma.workflow.life.failover_life"),
    ),
    Rule(
        "2-alive-replication",
        "A replication is alive while an NBD client is connected, or while its open row was touched lately.",
        (f"{GUARDS}.failovers.operation_in_progress",),
    ),
    Rule(
        "2-live-started",
        "A live failover whose VM was ever started, or may have been, is never touched, whatever is said.",
        (f"{GUARDS}.failovers.live_failover",),
    ),
    Rule(
        "2-live-never-started",
        "A live failover's VM that never started is emptied, never destroyed, and only with `force`, a reason and "
        "its id.",
        (f"{GUARDS}.failovers.live_failover",),
    ),
    Rule(
        "2-live-without-vm",
        "A live failover that made no VM is cleaned like a test failover.",
        (f"{GUARDS}.failovers.live_failover",),
    ),
    Rule(
        "2-source-off",
        "Where this failover powered the source VM off, answer, page and report begin with that.",
        ("oma.domain.verdict",),
    ),
    Rule(
        "2-finished-test",
        "A finished test failover whose VM exists is no failure; only `end_test` with a reason ends the drill.",
        (f"{GUARDS}.failovers.test_failover_active",),
    ),
    Rule(
        "2-times",
        "A recorded time in the future, or in the hour that clocks repeat, counts with its more dangerous meaning, "
        "and the plan says so.",
        ("database.times.local_to_utc", "oma.workflow.doubt"),
    ),
    Rule(
        "3-held",
        "A device that is held is not detached: processes, mounts in any namespace, loop, device-mapper, NBD clients.",
        (f"{GUARDS}.devices.device_in_use",),
    ),
    Rule(
        "3-end-holders",
        "`end_holders` ends the driver injection on exactly that device, by pid and start time as seen, journaled; "
        "never an NBD server, never a process that it doesn't know.",
        ("oma.workflow.holding.plan_ends", "oma.workflow.ending", "volume_daemon.server.ending.HolderEnder"),
    ),
    Rule(
        "3-unknown",
        "A scan that could not read everything, or is not proven, says unknown, never none.",
        (f"{GUARDS}.devices.device_in_use", "volume_daemon.holders.proof.prove"),
    ),
    Rule(
        "3-old-daemon",
        "A Volume Daemon that can't tell holders is refused.",
        (f"{GUARDS}.devices.device_in_use",),
    ),
    Rule(
        "4-431",
        "A refusal on detach is a question: the volume is read again; free counts as detached, a transition is "
        "waited out, anything else parks with CloudStack's text.",
        ("oma.workflow.actions.perform", "oma.workflow.drivers.DRIVERS"),
    ),
    Rule(
        "4-busy",
        "Volumes in transition are waited for, then `volume_busy`.",
        (f"{GUARDS}.volumes.volumes_are_settled", "oma.workflow.look.settled_look"),
    ),
    Rule(
        "4-detached-everywhere",
        "Detached means: CloudStack shows it free and the OMA shows no device, in a scan that began afterwards.",
        (f"{GUARDS}.devices.device_agrees", f"{PHASES}.snapshots.run"),
    ),
    Rule(
        "4-stopped",
        "A test VM's volumes count as detached only when the VM is Stopped, by an unforced stop; after a forced one"
        " it is seen Stopped twice with its host Up, or a person's word stands for the host.",
        (f"{GUARDS}.volumes.test_vm_gives_back", f"{PHASES}.detach.run", "oma.workflow.forcing"),
    ),
    Rule(
        "5-need",
        "A volume needs a revert unless it can be excluded that anything but the replication wrote to it; one that "
        "needs none is skipped, with the evidence.",
        ("oma.workflow.revert_need.revert_need",),
    ),
    Rule(
        "5-awaited",
        "A disk whose content a person gave up, with no replication completed since, needs no revert: it goes home, its"
        " snapshots stay, the VM ends `failed`; every rule but those about its snapshot holds.",
        ("oma.workflow.awaited.awaits_copy",),
    ),
    Rule(
        "5-missing",
        "One that needs a revert and has no usable snapshot stops everything before anything is touched.",
        (f"{GUARDS}.snapshots.snapshots_are_there",),
    ),
    Rule(
        "5-places",
        "Every id in the three tracking places is checked; exactly one that passes is the snapshot; a dead one "
        "beside it is noted.",
        ("oma.workflow.snapshot_rules.choose_snapshot",),
    ),
    Rule(
        "5-fits",
        "A snapshot fits when it is this volume's own, BackedUp, of its size, revertable, not older than the oldest"
        " failover since the last completed replication or clean-up, with no older one of ours in between and no VM"
        " snapshot beside it.",
        (f"{GUARDS}.snapshots.snapshots_fit",),
    ),
    Rule(
        "5-candidate",
        "An untracked snapshot is shown, and used only when a person names it with a reason; it is checked like a "
        "tracked one.",
        ("oma.workflow.snapshot_rules.choose_snapshot",),
    ),
    Rule(
        "5-again",
        "Right before each revert the snapshot and the volume are looked at again.",
        (f"{PHASES}.snapshots.run",),
    ),
    Rule(
        "5-replicated",
        "A replication that started or ended after the snapshot, or a change id stored after it, forbids the revert.",
        (f"{GUARDS}.snapshots.not_replicated_since",),
    ),
    Rule(
        "5-proof",
        "A revert is proven by its own job's success, by nothing else; no snapshot is deleted before all are proven.",
        ("oma.workflow.drivers.DRIVERS", f"{PHASES}.snapshots.run"),
    ),
    Rule(
        "5-tracking",
        "The tracking is cleared in all three places in one transaction.",
        ("oma.store.run_changes",),
    ),
    Rule(
        "5-unknown-revert",
        "A revert of unknown outcome is waited for, then repeated while nothing has attached the volume, a bounded "
        "number of times; a person's APPLIED is no proof, RESYNC brings the disk home to be copied whole; both wait.",
        ("oma.domain.resolving", "oma.workflow.reverting", "oma.workflow.released", "oma.workflow.touched"),
    ),
    Rule(
        "6-status",
        "While a run is queued, running or parked the status is `cleanup_required`; the reset is guarded by it and "
        "by the job id that was observed.",
        ("oma.store.queueing.queue_job", "oma.store.record_changes"),
    ),
    Rule(
        "6-asks-again",
        "Replications and NBD clients are asked about again before each detach from the OMA, before the first "
        "revert and before the reset.",
        ("oma.workflow.asking_again",),
    ),
    Rule(
        "6-one-run",
        "One run per VM and per volume, by lease with a fence.",
        ("oma.store.leases", "oma.store.claims"),
    ),
    Rule(
        "6-foreign-marker",
        "A marker of another installation stops everything.",
        (f"{GUARDS}.marks.foreign_marker", "oma.workflow.remarking", "oma.service.lifting.confirm_lifted"),
    ),
    Rule(
        "6-markers",
        "One call marks all volumes of a run and one its snapshots, before its first change; they go in one call after "
        "the run's end, which nobody waits for.",
        ("oma.workflow.marking.set_markers", "oma.workflow.unmarking"),
    ),
    Rule(
        "6-epochs",
        "A database older than the world recovers nothing: all in flight is parked and runs are refused until a person "
        "has looked.",
        ("oma.domain.epochs.find_older", "oma.service.epochs", "oma.store.epochs"),
    ),
    Rule(
        "6-own-ids",
        "Every call carries the id that was journaled before it, and expires; a lost one is looked for by that id.",
        ("oma.workflow.actions.perform", "oma.workflow.expiring.find_expiry"),
    ),
    Rule(
        "6-take-over",
        "Who takes a run over, abandons, resolves, cancels or undoes an action adopts or burns its id first.",
        (
            "oma.workflow.giving_up.give_up",
            "oma.workflow.sending.abandon",
            "oma.service.deciding.look_and_decide",
        ),
    ),
    Rule(
        "7-known",
        "The test VM is known by its recorded id, or by a name with this failover's own time stamp, never started "
        "and holding nothing but its own root; in any doubt it is left alone and told.",
        ("oma.workflow.leftover",),
    ),
    Rule(
        "7-destroy",
        "It is destroyed only while Stopped and holding no volume that any record knows, and never expunged.",
        (f"{PHASES}.reset.run",),
    ),
    Rule(
        "7-destroyed-holds",
        "A destroyed VM that holds a known volume is a critical issue with the hour its expunge falls due.",
        (f"{GUARDS}.volumes.no_destroyed_vm_holds_one", "oma.service.world_issues"),
    ),
    Rule(
        "8-kinds",
        "Every kind of action has its proof, its way on when unknown, and its undoing: a table.",
        ("oma.domain.actions.KIND_RULES", "oma.workflow.drivers.DRIVERS"),
    ),
    Rule(
        "8-undone",
        "Before the first revert a failure or a cancel puts every volume that the run detached back on the OMA, each "
        "only after its own detach has ended, and without its export where its content is not proven; after it the way "
        "is forward only.",
        ("oma.domain.undoing", "oma.workflow.compensation"),
    ),
    Rule(
        "8-force",
        "`force` passes exactly four things after a failed run: a test VM that won't stop, a snapshot that won't "
        "go, a test VM that won't go, an export that won't come back; each becomes a tracked leak.",
        ("oma.workflow.forcing",),
    ),
    Rule(
        "9-invariants",
        "After every run it is checked from CloudStack's own log, the journal and the rows: nothing reverted while held"
        " or twice once written to, no snapshot gone before its proof, nothing foreign touched, every call journaled,"
        " and at rest either whole or parked with an issue for each uncertain action.",
        ("oma.demo.invariants.judge", "oma.demo.checks.faults_of_a_cleaned_vm"),
    ),
)
