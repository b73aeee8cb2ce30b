"""HTTP statuses of OMA errors stand in one table; everybody else speaks in codes.

What aiohttp itself answers (a path without a route) is not ours, and a probe's 503 is no error document.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.arch.tree import list_modules, parse

TABLE = Path("oma/http/problems.py")
FIRST_ERROR = 400


def is_error_status(node: ast.expr) -> bool:
    """An error status as a number (404) or by its name (HTTPStatus.NOT_FOUND)."""
    match node:
        case ast.Constant(value=int(number)) if not isinstance(number, bool):
            return FIRST_ERROR <= number < 600
        case ast.Attribute(value=ast.Name(id="HTTPStatus"), attr=name):
            return name in HTTPStatus.__members__ and HTTPStatus[name] >= FIRST_ERROR
        case ast.Attribute(value=inner, attr="value"):
            return is_error_status(inner)
        case ast.Tuple(elts=parts) | ast.List(elts=parts) | ast.Set(elts=parts):
            return any(map(is_error_status, parts))
    return False


def is_status(node: ast.expr) -> bool:
    """Something called `status`, `status_code` or `…_status`."""
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in {"status", "status_code"} or name.endswith("_status")


def find_statuses(tree: ast.AST) -> Iterator[int]:
    """Lines that name an error status: `status=404`, `answer.status == 404`, `problem(409, …)`."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=called, keywords=keywords):
                if any(word.arg in {"status", "status_code"} and is_error_status(word.value) for word in keywords):
                    yield node.lineno
                name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                if name == "problem" and node.args and is_error_status(node.args[0]):
                    yield node.lineno
            case ast.Compare(left=left, comparators=others):
                sides = [left, *others]
                if any(map(is_status, sides)) and any(map(is_error_status, sides)):
                    yield node.lineno


def test_error_statuses_stand_only_in_the_table() -> None:
    found = [f"{path}:{line}" for path in list_modules("oma") if path != TABLE for line in find_statuses(parse(path))]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "web.json_response({}, status=503)",
        "respond(status=HTTPStatus.CONFLICT)",
        "answer.status == 404",
        "answer.status in (502, 504)",
        "problem(409, 'code', 'title', 'detail', 'id')",
    ],
)
def test_a_status_elsewhere_is_found(line: str) -> None:
    assert list(find_statuses(ast.parse(line))) == [1]


@pytest.mark.parametrize("line", ["status = 431", "error.errorcode == 431", "answer.status == 200", "limit=500"])
def test_other_numbers_are_left_alone(line: str) -> None:
    assert list(find_statuses(ast.parse(line))) == []
