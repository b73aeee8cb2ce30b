"""Reading the body of the main job; whatever does not fit is `invalid_request`, and nothing is done."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from aiohttp import web

from oma.domain.jobs import CleanupRequest
from oma.domain.spoken import WORD_FIELDS, read_reason, read_words
from oma.domain.states import PHASES, Phase
from oma.domain.words import Words
from oma.http.query import invalid

JSON_TYPES: Final = frozenset({"application/json", "application/x-www-form-urlencoded", "application/octet-stream"})
"""curl's `-d` says form, and no type at all reads as octet-stream; both are taken for the JSON that they have to be."""

DIGEST: Final = re.compile(r"[0-9a-f]{64}")
LONGEST_ID: Final = 64
RESUME_FIELDS: Final = ("force", "reason")


async def read_json_object(request: web.Request) -> dict[str, Any]:
    """The body as a JSON object; an empty body is an empty one. Raises 413 and 415 as the framework does."""
    raw = await request.read()
    if not raw.strip():
        return {}
    if request.content_type not in JSON_TYPES and not request.content_type.endswith("+json"):
        raise web.HTTPUnsupportedMediaType
    try:
        found = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=_once, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise invalid("body", "The body is not UTF-8; send JSON in UTF-8.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise invalid("body", f"The body is not JSON ({error.msg} at {place}); send a JSON object.") from None
    except (RecursionError, ValueError):
        raise invalid(
            "body", "The body is nested too deeply or holds an endless number; send a flat JSON object."
        ) from None
    if not _is_whole_text(found):
        raise invalid("body", "The body holds half of a surrogate pair, which is no character; send whole text.")
    if not isinstance(found, dict):
        raise invalid("body", f"The body is {_type_of(found)}; send a JSON object.", "a JSON object")
    return found


def _is_whole_text(found: Any) -> bool:
    """JSON can escape what UTF-8 cannot hold."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise invalid(key[:64], f"The body names {key[:64]!r} twice; name it once.")
        found[key] = value
    return found


def _refuse_constant(name: str) -> None:
    raise invalid("body", f"The body holds {name}, which is no JSON.")


def read_cleanup(body: dict[str, Any], vm_name: str, correlation_id: str) -> CleanupRequest:
    """What is asked for, in the domain's words. Raises `invalid_request` for the first field that does not fit."""
    _check_names(body, (*READERS, *WORD_FIELDS))
    values = {name: read(name, body[name]) for name, read in READERS.items() if body.get(name) is not None}
    words = read_words(body, values)
    return CleanupRequest(vm_name=vm_name, correlation_id=correlation_id, words=words, **values)


def read_resume(body: dict[str, Any]) -> Words:
    """The body of `POST /jobs/{id}/resume`: nothing, or `force` with a `reason`. Raises `invalid_request`."""
    _check_names(body, RESUME_FIELDS)
    return read_words({**body, "resume": True})


def read_cancel(body: dict[str, Any]) -> str | None:
    """The body of `POST /jobs/{id}/cancel`: nothing, or a `reason`. Raises `invalid_request`."""
    _check_names(body, ("reason",))
    return read_reason(body["reason"]) if body.get("reason") is not None else None


def _check_names(body: dict[str, Any], known: Iterable[str]) -> None:
    names = sorted(known)
    for name in body:
        if name not in names:
            raise invalid(name[:64], f"There is no field {name[:64]!r}; possible: {', '.join(names)}.", names)


def _read_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise invalid(name, f"{name} must be true or false, not {_type_of(value)}.", "true or false")
    return value


def _read_id(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_ID or "\x00" in value:
        allowed = f"a text of 1 to {LONGEST_ID} characters"
        raise invalid(name, f"{name} must be {allowed}.", allowed)
    return value


def _read_digest(name: str, value: Any) -> str:
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        allowed = "the plan_digest of a dry run, 64 hexadecimal digits"
        raise invalid(name, f"{name} must be {allowed}.", allowed)
    return value


def _read_phases(name: str, value: Any) -> tuple[Phase, ...]:
    """The named phases in their order, the analysis always first; a gap between the others is refused."""
    allowed = [phase.value for phase in PHASES]
    if not isinstance(value, list) or not value:
        raise invalid(name, f"{name} must be a list of at least one of: {', '.join(allowed)}.", allowed)
    for entry in value:
        if not isinstance(entry, str) or entry not in allowed:
            raise invalid(name, f"{name} holds an unknown step; possible: {', '.join(allowed)}.", allowed)
    if len(set(value)) < len(value):
        raise invalid(name, f"{name} names a step twice; name each once.", allowed)
    chosen = tuple(phase for phase in PHASES if phase.value in value or phase is Phase.ANALYZE)
    others = [PHASES.index(phase) for phase in chosen if phase is not Phase.ANALYZE]
    if others and others[-1] - others[0] + 1 != len(others):
        missing = [PHASES[at].value for at in range(others[0], others[-1]) if at not in others]
        raise invalid(name, f"{name} leaves a gap: {', '.join(missing)} stands between the named steps.", allowed)
    return chosen


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case _:
            return "an object"


READERS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "context_id": _read_id,
    "dry_run": _read_bool,
    "expect_plan": _read_digest,
    "phases": _read_phases,
}
