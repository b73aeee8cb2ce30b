"""The words in which routes describe themselves for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from oma.http.query import DEFAULT_LIMIT, HIGHEST_LIMIT
from oma.http.shapes import TEXT, Schema, ref

Description = dict[str, Any]


def operation(
    operation_id: str,
    summary: str,
    answers: dict[int, Description],
    *,
    tag: str,
    parameters: Iterable[Description] = (),
    problems: Iterable[int] = (),
    body: str | None = None,
) -> Description:
    """One operation; `problems` are the statuses of its problem documents."""
    described: Description = {
        "operationId": operation_id,
        "summary": summary,
        "tags": [tag],
        "parameters": list(parameters),
        "responses": {
            **{str(int(status)): answer for status, answer in answers.items()},
            **{str(int(status)): _problem(HTTPStatus(status)) for status in problems},
            "default": _problem(None),
        },
    }
    if body is not None:
        described["requestBody"] = {"required": False, "content": {"application/json": {"schema": ref(body)}}}
    return described


def answers_json(name: str, description: str) -> Description:
    return {"description": description, "content": {"application/json": {"schema": ref(name)}}}


def answers_text(content_type: str, description: str) -> Description:
    return {"description": description, "content": {content_type: {"schema": {"type": "string"}}}}


def _problem(status: HTTPStatus | None) -> Description:
    return {
        "description": status.phrase if status else "Any other error",
        "content": {"application/problem+json": {"schema": ref("Problem")}},
    }


def in_path(name: str, description: str) -> Description:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": TEXT}


def in_query(name: str, description: str, schema: Schema | None = None) -> Description:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema or TEXT}


def in_header(name: str, description: str) -> Description:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": TEXT}


LIMIT = in_query(
    "limit",
    "How many items at most.",
    {"type": "integer", "minimum": 1, "maximum": HIGHEST_LIMIT, "default": DEFAULT_LIMIT},
)
CURSOR = in_query("cursor", "next_cursor of the page before.")
