"""What a phase says when it is over."""

from __future__ import annotations

from dataclasses import dataclass

from oma.domain.states import StepStatus


@dataclass(frozen=True, slots=True)
class PhaseOutcome:
    """`skipped` when there was nothing to do; the sentence says what was done or why nothing was."""

    status: StepStatus
    sentence: str


def completed(sentence: str) -> PhaseOutcome:
    return PhaseOutcome(StepStatus.COMPLETED, sentence)


def skipped(sentence: str) -> PhaseOutcome:
    return PhaseOutcome(StepStatus.SKIPPED, sentence)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
