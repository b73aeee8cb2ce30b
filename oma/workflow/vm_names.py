"""How existing installations name test VMs: `<name>-test-<Unix time>`, then sanitised to a host name."""

from __future__ import annotations

import re
from typing import Final

TEST_VM_INFIX: Final = "-test-"
LONGEST: Final = 63


def sanitise(name: str) -> str:
    """Lower case, other than `a-z0-9-` becomes `-`, runs joined, ends trimmed, `vm-` before a digit, cut to 63."""
    plain = re.sub(r"-+", "-", re.sub(r"[^a-z0-9-]", "-", name.lower())).strip("-")
    return (f"vm-{plain}" if plain[:1].isdigit() else plain)[:LONGEST]


def build_test_vm_prefix(vm_name: str) -> str:
    """What comes before the time stamp."""
    return sanitise(f"{vm_name}{TEST_VM_INFIX}0").removesuffix("0")


def read_time_stamp(vm_name: str, test_vm_name: str) -> int | None:
    """The Unix time in a test VM's name; None where it is another VM's, or may have been cut."""
    prefix = build_test_vm_prefix(vm_name)
    stamp = test_vm_name.removeprefix(prefix)
    if stamp == test_vm_name or not re.fullmatch(r"[0-9]+", stamp, re.ASCII) or len(test_vm_name) >= LONGEST:
        return None
    return int(stamp)


def is_of_longer_name(vm_name: str, test_vm_name: str) -> bool:
    """Whether it is named as the test VM of another VM, whose name begins like a test VM of this one.

    `db-test-1-test-1772326800` is of `db-test-1`, and nothing of `db`.
    """
    return TEST_VM_INFIX in test_vm_name.removeprefix(build_test_vm_prefix(vm_name).removesuffix("-"))
