"""The shortest time that the simulator's own rules allow: pure arithmetic, no measurement.

Rules: one queue per VM for attach and detach (where it is on), reverts and deletions beside each other, a barrier
between phases and between "all reverted" and "delete", which the product's safety asks for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds that each CloudStack job takes."""

    detach_s: float = 3.0
    revert_s: float = 5.0
    delete_s: float = 2.0
    attach_s: float = 3.0

    def scaled(self, factor: float) -> Durations:
        return Durations(self.detach_s * factor, self.revert_s * factor, self.delete_s * factor, self.attach_s * factor)


def lead_in_s(volumes: int, durations: Durations, *, queue_per_vm: bool) -> float:
    """From the first detach to the first attach of one VM."""
    detaches = durations.detach_s * (volumes if queue_per_vm else 1)
    return detaches + durations.revert_s + durations.delete_s


def one_vm_s(volumes: int, durations: Durations, *, queue_per_vm: bool) -> float:
    """One VM whose volumes all hang on its stopped test VM."""
    attaches = durations.attach_s * (volumes if queue_per_vm else 1)
    return lead_in_s(volumes, durations, queue_per_vm=queue_per_vm) + attaches


def batch_s(vms: int, volumes: int, durations: Durations) -> float:
    """Many VMs at once: the OMA's one attach queue, begun when the first VM has come so far."""
    return lead_in_s(volumes, durations, queue_per_vm=True) + vms * volumes * durations.attach_s


def serial_s(volumes: int, durations: Durations) -> float:
    """The algorithm that users have today, without its polling: volume after volume, phase after phase."""
    return volumes * (durations.detach_s + durations.revert_s + durations.delete_s + durations.attach_s)
