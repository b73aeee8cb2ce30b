"""The shapes of what is said about an issue, and of the answer."""

from __future__ import annotations

from typing import Any, Final

from oma.domain.resolving import SPOKEN
from oma.domain.spoken import LONGEST_REASON

RESOLVE_FIELDS: Final[dict[str, Any]] = {
    "resolution": {
        "type": "string",
        "enum": list(SPOKEN),
        "description": "APPLIED (also EXECUTED): it did happen and is skipped. ROLLED_BACK: it did not, and runs "
        "again. RESYNC: the disk goes home without a revert, and the next replication copies it whole.",
    },
    "notes": {
        "type": "string",
        "minLength": 1,
        "maxLength": LONGEST_REASON,
        "description": "What you found and did, on one line; it stands in the audit.",
    },
    "insist": {
        "type": ["boolean", "null"],
        "description": "For an admin, against what the world shows; refused until there are accounts.",
    },
    "reason": {"type": ["string", "null"], "description": "Why, with insist."},
}
