"""`/api/v1/control`: the emergency stop and the hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from aiohttp import web

from appliance.web import correlation_id_of
from oma.domain.controls import OPERATIONS, Pause, Scope
from oma.domain.spoken import read_reason
from oma.http.body import LONGEST_ID, read_json_object
from oma.http.described import answers_json, operation
from oma.http.query import check_names, invalid
from oma.http.site import Route, answer_json, site_of
from oma.service import pausing
from oma.service.answers import as_rfc3339
from oma.service.pausing import ControlAnswer, ControlRequest

FIELDS: Final = ("scope", "operation", "vm_name", "context_id", "reason")
FIELDS_OF: Final = {
    Scope.ALL: (),
    Scope.OPERATION: ("operation",),
    Scope.VM: ("vm_name", "context_id"),
}
"""Which of them says what is meant, by scope."""


async def show_control(request: web.Request) -> web.Response:
    check_names(request, ())
    return answer_json(_control(await pausing.list_pauses(site_of(request).deps)))


async def pause(request: web.Request) -> web.Response:
    check_names(request, ())
    asked = read_control(await read_json_object(request), correlation_id_of(request), needs_reason=True)
    return answer_json(_changed(await pausing.pause(site_of(request).deps, asked)))


async def resume(request: web.Request) -> web.Response:
    check_names(request, ())
    asked = read_control(await read_json_object(request), correlation_id_of(request), needs_reason=False)
    return answer_json(_changed(await pausing.resume(site_of(request).deps, asked)))


def read_control(body: dict[str, Any], correlation_id: str, *, needs_reason: bool) -> ControlRequest:
    """Raises `invalid_request` for the first field that does not fit."""
    for name in body:
        if name not in FIELDS:
            raise invalid(name[:64], f"There is no field {name[:64]!r}; possible: {', '.join(FIELDS)}.", list(FIELDS))
    given = {name: value for name, value in body.items() if value is not None}
    scopes = [scope.value for scope in Scope]
    if given.get("scope") not in scopes:
        raise invalid("scope", f"scope must be one of: {', '.join(scopes)}.", scopes)
    scope = Scope(given["scope"])
    for name in ("operation", "vm_name", "context_id"):
        if name in given and name not in FIELDS_OF[scope]:
            raise invalid(name, f"{name} does not go with the scope {scope.value}; leave it out.")
    if "reason" not in given and needs_reason:
        raise invalid("reason", "A pause needs a reason, which stands in the audit and in every refusal; say why.")
    return ControlRequest(
        scope=scope,
        operation=_read_operation(given) if scope is Scope.OPERATION else None,
        vm_name=_read_text(given, "vm_name", None) if scope is Scope.VM else None,
        context_id=_read_text(given, "context_id", LONGEST_ID) if "context_id" in given else None,
        reason=read_reason(given["reason"]) if "reason" in given else None,
        correlation_id=correlation_id,
    )


def _read_operation(given: dict[str, Any]) -> str:
    if given.get("operation") not in OPERATIONS:
        raise invalid("operation", f"operation must be one of: {', '.join(OPERATIONS)}.", list(OPERATIONS))
    return str(given["operation"])


def _read_text(given: dict[str, Any], name: str, longest: int | None) -> str:
    """How long a VM's name may be is said where it is looked up."""
    value = given.get(name)
    if not isinstance(value, str) or not value or "\x00" in value or (longest is not None and len(value) > longest):
        allowed = "a text" if longest is None else f"a text of 1 to {longest} characters"
        raise invalid(name, f"{name} must be {allowed}.", allowed)
    return value


def _control(pauses: Iterable[Pause]) -> dict[str, Any]:
    items = [{**pause.as_json(), "since": as_rfc3339(pause.since), "sentence": pause.sentence} for pause in pauses]
    return {"paused": bool(items), "pauses": items}


def _changed(answer: ControlAnswer) -> dict[str, Any]:
    return {"success": True, "changed": answer.changed, "message": answer.sentence, **_control(answer.pauses)}


ROUTES: Final = (
    Route(
        "GET",
        "/api/v1/control",
        show_control,
        operation(
            "showControl",
            "What is paused, by whom and why",
            {200: answers_json("Control", "Every pause in force.")},
            tag="control",
            problems=(422, 503),
        ),
    ),
    Route(
        "POST",
        "/api/v1/control/pause",
        pause,
        operation(
            "pause",
            "Stop everything, an operation or a VM at the next safe point, and begin nothing more of it",
            {200: answers_json("ControlChanged", "It is paused, also after a restart.")},
            tag="control",
            problems=(403, 404, 409, 413, 415, 422, 503),
            body="PauseRequest",
        ),
    ),
    Route(
        "POST",
        "/api/v1/control/resume",
        resume,
        operation(
            "resume",
            "Lift a pause: what it stopped goes on",
            {
                200: answers_json(
                    "ControlChanged", "That pause is not in force any more; `changed` says whether it was."
                )
            },
            tag="control",
            problems=(403, 404, 409, 413, 415, 422, 503),
            body="LiftRequest",
        ),
    ),
)
