"""The planted bugs: what was broken, the invariant that names it, and the seed in which the simulation catches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import pytest

from tests.simulation import scene, simulate
from tests.simulation.moving import move_while_a_detach_is_lost
from tests.simulation.network import Mishap, Planned
from tests.simulation.planted import deciding, surviving
from tests.simulation.replicating import NAME as REPLICATION
from tests.simulation.replicating import replicate_while_nobody_begins
from tests.simulation.simulate import Report, run_seed

SHORT_LEASE_S: Final = 15.0
CRASHES: Final = ("crash at any await", "delivered after the take-over")
LATE: Final = ("delivered after the take-over",)
REVERTS: Final = ("job failed", "job failed-but-applied", "server restart")


@dataclass(frozen=True, slots=True)
class PlantedBug:
    """`struck_by`: faults of which a seed needs at least one, where the bug has no chance without.

    `late`: with the bug and without it this call arrives so many seconds after its sender's death, in a world of short
    leases, in place of the seed's own faults: chance would hardly ever bring the two together.
    """

    plant: Callable[[pytest.MonkeyPatch], None]
    invariant: str
    seed: int
    struck_by: tuple[str, ...] = ()
    late: tuple[str, float] | None = None
    staged: tuple[Callable[[scene.Scene], None], str] | None = None
    """With the bug and without it this happens in place of the seed's own faults, which would hardly ever bring it about;
    and its sentence.
    """

    @property
    def name(self) -> str:
        return self.plant.__name__.replace("_", " ")

    def live_through(self, seed: int, *, planted: bool = True, keep_trace: bool = False) -> Report:
        """This seed with the bug in place, or without it."""
        with pytest.MonkeyPatch.context() as patch:
            if self.late is not None:
                workflow = scene.SETTINGS.workflow.model_copy(update={"lease_s": SHORT_LEASE_S})
                patch.setattr(scene, "SETTINGS", scene.SETTINGS.model_copy(update={"workflow": workflow}))
                patch.setattr(simulate, "arm_faults", self._arm)
            if self.staged is not None:
                patch.setattr(simulate, "arm_faults", self._stage)
            if planted:
                self.plant(patch)
            return run_seed(seed, keep_trace=keep_trace)

    def _arm(self, world: scene.Scene, *_drawn: object) -> None:
        if self.late is not None:
            name, delay_s = self.late
            world.network.planned.append(Planned(Mishap.LATE_AFTER_DEATH, name, 1, delay_s))

    def _stage(self, world: scene.Scene, *_drawn: object) -> None:
        if self.staged is not None:
            self.staged[0](world)

    @property
    def world(self) -> str:
        """Its seed, and what was put in the place of the seed's own faults."""
        staged = f", in which a {self.late[0]} arrives {self.late[1]:.0f} s late" if self.late is not None else ""
        if self.staged is not None:
            staged = f", in which {self.staged[1]}"
        return f"{self.seed}{staged}"

    @property
    def sentence(self) -> str:
        return (self.plant.__doc__ or "").strip()


PLANTED: Final = (
    PlantedBug(surviving.skip_the_probe, "journaled", 7, CRASHES),
    PlantedBug(deciding.delete_before_proof, "no-delete-before-proof", 108, REVERTS),
    PlantedBug(deciding.attach_on_unknown, "no-attach-unproven", 108, REVERTS),
    PlantedBug(deciding.unproven_counts_as_executed, "no-delete-before-proof", 108, REVERTS),
    PlantedBug(surviving.ignore_the_fence, "no-lower-fence", 1, late=("POST detach", 55.0)),
    PlantedBug(surviving.no_burn, "no-given-up-id", 126, LATE),
    PlantedBug(
        surviving.sent_again_without_a_look,
        "no-foreign-vm",
        1,
        staged=(move_while_a_detach_is_lost, "a person moves the volume whose detach was lost"),
    ),
    PlantedBug(surviving.told_before_commit, "told-is-committed", 7, CRASHES),
    PlantedBug(surviving.journaled_after_sending, "journaled", 7, CRASHES),
    PlantedBug(surviving.lost_is_not_sent, "journaled", 7, ("lost answer",)),
    PlantedBug(deciding.destroy_without_the_volume_check, "no-destroy-with-volume", 3),
    PlantedBug(
        deciding.device_check_skipped,
        "no-revert-while-held",
        405,
        ("detached only in the database with a writer still open", "a revert that replaces the file under a holder"),
    ),
    PlantedBug(deciding.refused_is_detached, "no-revert-while-held", 192, ("431 for other reasons", "VM snapshot")),
    PlantedBug(deciding.applied_deletes, "no-delete-before-proof", 2196, REVERTS),
    PlantedBug(deciding.window_is_not_waited_out, "no-second-revert", 108, REVERTS),
    PlantedBug(surviving.epoch_is_not_looked_at, "no-older-copy", 160),
    PlantedBug(deciding.proven_revert_made_again, "no-second-revert", 13, CRASHES),
    PlantedBug(deciding.completed_away_from_home, "completed-is-whole", 3),
    PlantedBug(deciding.status_left_wrong, "completed-is-whole", 3),
    PlantedBug(surviving.export_forgotten, "completed-is-whole", 3),
    PlantedBug(deciding.parked_without_an_issue, "parked-is-named", 12, REVERTS),
    PlantedBug(deciding.only_the_first_is_named, "parked-is-named", 132, REVERTS),
    PlantedBug(deciding.one_left_behind, "back-is-back", 36, ("job stuck", "431 for other reasons", "job failed")),
    PlantedBug(deciding.exported_unproven, "back-is-back", 11, ("job stuck", "431 for other reasons", "job failed")),
    PlantedBug(deciding.marker_left, "no-marker-left", 3),
    PlantedBug(deciding.attached_to_the_test_vm, "no-foreign-vm", 3),
    PlantedBug(deciding.forced_by_itself, "forced-by-word", 4),
    PlantedBug(deciding.everything_is_refused, "comes-to-an-end", 2),
    PlantedBug(deciding.no_word_is_taken, "comes-to-an-end", 123, REVERTS),
    PlantedBug(deciding.replications_are_not_asked_about, "completed-is-whole", 1036, (REPLICATION,)),
    PlantedBug(
        deciding.clients_are_not_seen,
        "held-is-not-detached",
        2,
        staged=(replicate_while_nobody_begins, "a replication has long begun when the run does"),
    ),
)
