"""What several guards ask of the evidence: where the volumes are, which need a revert, and what nobody answered."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from oma.domain.evidence import Evidence
from oma.domain.records import VolumeRecord
from oma.domain.states import VolumePlace
from oma.domain.words import Words
from oma.domain.world import CloudVolume, VolumeFacts
from oma.workflow.leftover import find_test_vm, place_of
from oma.workflow.revert_need import revert_need


def is_home(facts: VolumeFacts, place: VolumePlace) -> bool:
    """On the OMA, as CloudStack and the OMA itself see it."""
    return place is VolumePlace.ON_OMA and facts.on_oma is True


def places(evidence: Evidence) -> Iterator[tuple[VolumeRecord, VolumeFacts, VolumePlace]]:
    test_vm = find_test_vm(evidence)
    oma_vm_id = evidence.config.oma_vm_id if evidence.config else None
    for volume in evidence.records.volumes:
        facts = evidence.get_facts(volume.volume_id)
        yield volume, facts, place_of(facts, oma_vm_id, test_vm.id if test_vm else None)


def to_revert(evidence: Evidence) -> Iterator[tuple[VolumeRecord, CloudVolume]]:
    """Volumes that need a revert and are well enough known for their snapshot to be judged."""
    if asked_in_vain(evidence, "the tracked snapshots"):
        return
    for volume, facts, place in places(evidence):
        if isinstance(facts.cloud, CloudVolume) and revert_need(evidence, facts, place).needed:
            yield volume, facts.cloud


def asked_in_vain(evidence: Evidence, question: str) -> bool:
    return any(unanswered.question == question for unanswered in evidence.unanswered)


def name_of(evidence: Evidence) -> str:
    return evidence.records.context.vm_name


def command_with(evidence: Evidence, words: Words) -> str:
    """The pasteable clean-up with these words; whoever calls gives what was said already too, lest it be lost."""
    flags = {"--end-test": words.end_test, "--end-holders": words.end_holders, "--force": words.force}
    parts = ["oma", "cleanup", name_of(evidence), *(flag for flag, said in flags.items() if said)]
    if words.destination_vm_id is not None:
        parts += ["--destination-vm-id", words.destination_vm_id]
    for volume_id, snapshot_id in sorted(words.snapshots):
        parts += ["--snapshot", f"{volume_id}={snapshot_id}"]
    return shlex.join([*parts, "--reason", words.reason or "WHY"])
