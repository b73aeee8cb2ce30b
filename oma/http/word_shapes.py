"""The shapes of the words that only a person may say, as JSON Schema; `oma.domain.spoken` reads them."""

from __future__ import annotations

from typing import Any, Final

from oma.domain.spoken import LONGEST_REASON, MOST_SNAPSHOTS

UUID: Final[dict[str, Any]] = {"type": "string", "format": "uuid"}
WORDS: Final[dict[str, dict[str, Any]]] = {
    "force": {
        "type": ["boolean", "null"],
        "description": "After a failed run: leave behind, as tracked leaks, a test VM that won't stop or be destroyed, "
        "a snapshot that won't be deleted, an export that won't come back. Needs a reason.",
    },
    "end_test": {
        "type": ["boolean", "null"],
        "description": "End a drill: clean up a test failover that has finished. Needs a reason.",
    },
    "end_holders": {
        "type": ["boolean", "null"],
        "description": "End this failover's own driver injection that holds a device on the OMA. Needs a reason.",
    },
    "destination_vm_id": {
        "anyOf": [UUID, {"type": "null"}],
        "description": "With force: the VM of a live failover that was never started; it is emptied, not destroyed.",
    },
    "snapshots": {
        "type": ["object", "null"],
        "additionalProperties": UUID,
        "propertyNames": {"format": "uuid"},
        "minProperties": 1,
        "maxProperties": MOST_SNAPSHOTS,
        "description": "Volume id to snapshot id: the snapshots to go back to. Needs a reason.",
    },
    "resume": {
        "type": ["boolean", "null"],
        "description": "Go on with the parked run of this VM; alone, or with force and a reason.",
    },
    "reason": {
        "type": ["string", "null"],
        "minLength": 1,
        "maxLength": LONGEST_REASON,
        "description": "Why; one line, kept in the audit for ever.",
    },
}
"""What only a person may say; force, end_test and end_holders exclude each other."""
