"""The list: each sentence of section 9 by name, what checks it, and in which kinds of test it is asked."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Final

from oma.demo.invariants import calls, marks, rest, runs
from oma.demo.invariants.calls import Found
from oma.demo.invariants.facts import History, Violation

SIMULATION: Final = "simulation"
CRASH: Final = "crash matrix"
WORKFLOW: Final = "workflow tests"
ACCEPTANCE: Final = "acceptance and demo"
CHAOS: Final = "process chaos"
EVERYWHERE: Final = (SIMULATION, CRASH, WORKFLOW, ACCEPTANCE, CHAOS)
ON_THE_MODEL: Final = (SIMULATION, CRASH, WORKFLOW)
PLACES: Final = {
    SIMULATION: "`tests/simulation` and `make bench-simulation`, at each rest and the end (`tests.fakes.invariants`)",
    CRASH: "`tests/crash` and `make bench-crash`, after every death and restart (`tests.fakes.invariants`)",
    WORKFLOW: "every test that ends with `Stage.check` or `Stage.clean` (`tests.fakes.invariants`)",
    ACCEPTANCE: "every scenario of the demo, and the tests on its stack (`oma.demo.judging`)",
    CHAOS: "`tests/chaos` and `benchmarks/chaos.py`, at every rest and after every round (`oma.demo.judging`)",
}
"""Kind of test → where it asks, and through what."""


@dataclass(frozen=True, slots=True)
class Invariant:
    name: str
    sentence: str
    check: Callable[[History], Found]
    asked_in: tuple[str, ...] = EVERYWHERE


INVARIANTS: Final = (
    Invariant(
        "no-revert-while-held",
        "No revert while anything holds the device, as CloudStack and the OMA saw it.",
        calls.nothing_held_is_reverted,
    ),
    Invariant(
        "no-delete-before-proof",
        "No snapshot deleted before its revert, and every other of the run, was proven by its own job.",
        calls.no_snapshot_goes_before_its_proof,
    ),
    Invariant(
        "no-second-revert",
        "None reverted again once anything could have written to it, once its revert was proven, or within its window.",
        calls.none_is_reverted_again_after_a_touch,
    ),
    Invariant(
        "no-attach-unproven",
        "Nothing is attached between a revert and its proof, but by a person's word once its window has passed.",
        calls.nothing_unproven_is_attached,
    ),
    Invariant(
        "no-foreign-vm",
        "Nothing done to a VM that is neither the OMA nor this job's test VM, nor to a volume of another VM.",
        calls.nothing_foreign_is_touched,
    ),
    Invariant(
        "no-destroy-with-volume",
        "No VM destroyed that holds a known volume, or that has not stopped.",
        calls.no_vm_is_destroyed_with_a_known_volume,
    ),
    Invariant(
        "no-foreign-snapshot",
        "No foreign snapshot touched.",
        calls.no_foreign_snapshot_is_touched,
    ),
    Invariant(
        "one-run",
        "At most one run per VM and per volume.",
        runs.one_run_per_vm_and_volume,
    ),
    Invariant(
        "no-lower-fence",
        "Once a later lease has acted on a volume, an earlier one's call is not carried out any more.",
        runs.no_fence_goes_back,
        ON_THE_MODEL,
    ),
    Invariant(
        "no-given-up-id",
        "Nothing sent under an id that was given up.",
        runs.nothing_is_sent_under_an_id_that_was_given_up,
    ),
    Invariant(
        "no-older-copy",
        "Nothing sent by an older copy of the database before a person has looked.",
        runs.nothing_goes_by_an_older_copy,
        (SIMULATION,),
    ),
    Invariant(
        "journaled",
        "Every external call is in the journal with its id, and was when it came.",
        calls.every_call_is_in_the_journal,
    ),
    Invariant(
        "no-blind-repeat",
        "No call of an action but a stop is sent while another call of it is under way.",
        calls.nothing_is_repeated_blindly,
    ),
    Invariant(
        "told-is-committed",
        "Nobody is told what is not committed.",
        runs.nothing_is_told_before_it_is_committed,
        ON_THE_MODEL,
    ),
    Invariant(
        "forced-by-word",
        "Nothing is forced without a person's word.",
        calls.nobody_is_forced_without_a_word,
    ),
    Invariant(
        "no-marker-left",
        "No marker outlives its run, but one whose removal is journaled and swept up later.",
        marks.no_marker_outlives_its_run,
    ),
    Invariant(
        "at-rest",
        "Every run comes to rest.",
        rest.everything_comes_to_rest,
    ),
    Invariant(
        "completed-is-whole",
        "Completed: right bytes, attachments, exports, change ids, nothing left over, rows reset; never otherwise.",
        rest.completed_means_whole,
    ),
    Invariant(
        "parked-is-named",
        "Parked: an open issue names each uncertain action.",
        rest.parked_means_named,
    ),
    Invariant(
        "back-is-back",
        "Failed or cancelled: nothing was changed, or what was moved is back and nothing is uncertain.",
        rest.gone_back_means_back,
    ),
    Invariant(
        "nonsense-is-parked",
        "A run whose own row can't be read is parked, and an open issue says so.",
        rest.what_makes_no_sense_is_parked,
    ),
)
AT_EACH_REST: Final = frozenset({"completed-is-whole", "parked-is-named", "back-is-back", "nonsense-is-parked"})
"""What holds whenever a run has come to rest, also when it goes on later."""


def judge(history: History, only: Container[str] | None = None) -> list[Violation]:
    """Everything that must never have been; empty is good. `only`: names of the invariants that are asked."""
    return [
        Violation(invariant.name, vm_name, sentence)
        for invariant in INVARIANTS
        if only is None or invariant.name in only
        for vm_name, sentence in invariant.check(history)
    ]


def judge_rest(history: History) -> list[Violation]:
    """How the newest runs of these VMs were left, in the middle of a history: what is still to be sent is not asked."""
    return judge(history, AT_EACH_REST)
