"""The shapes of the emergency stop's bodies and answers."""

from __future__ import annotations

from typing import Any, Final

from oma.domain.controls import OPERATIONS, Scope
from oma.domain.spoken import LONGEST_REASON

TEXT: Final = {"type": "string"}
TEXT_OR_NULL: Final = {"type": ["string", "null"]}
SCOPE: Final = {
    "type": "string",
    "enum": [scope.value for scope in Scope],
    "description": "Everything, an operation, or one VM (a hold).",
}
OPERATION_OR_NULL: Final = {"enum": [*OPERATIONS, None], "description": "With the scope operation."}
REASON: Final = {
    "minLength": 1,
    "maxLength": LONGEST_REASON,
    "description": "Why, on one line; it stands in the audit and in every refusal.",
}


def _body(reason: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "scope": SCOPE,
            "operation": OPERATION_OR_NULL,
            "vm_name": {**TEXT_OR_NULL, "description": "With the scope vm."},
            "context_id": {**TEXT_OR_NULL, "description": "Which VM, where several carry the name."},
            "reason": reason,
        },
        "required": ["scope", *required],
        "additionalProperties": False,
    }


PAUSE: Final = {
    "scope": SCOPE,
    "operation": OPERATION_OR_NULL,
    "vm_name": TEXT_OR_NULL,
    "context_id": TEXT_OR_NULL,
    "reason": TEXT,
    "by": TEXT,
    "since": {"type": "string", "format": "date-time"},
    "lift": {**TEXT, "description": "The command that lifts it."},
    "sentence": TEXT,
}
CONTROL: Final = {
    "paused": {"type": "boolean"},
    "pauses": {"type": "array", "items": {"$ref": "#/components/schemas/Pause"}},
}
CHANGED: Final = {"success": {"const": True}, "changed": {"type": "boolean"}, "message": TEXT, **CONTROL}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


CONTROL_SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "PauseRequest": _body({"type": "string", **REASON}, "reason"),
    "LiftRequest": _body({"type": ["string", "null"], **REASON}),
    "Pause": _closed(PAUSE),
    "Control": _closed(CONTROL),
    "ControlChanged": _closed(CHANGED),
}
