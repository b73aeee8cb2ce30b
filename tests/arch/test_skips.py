"""A test is skipped only through `require_part`, so that CI sees every missing part."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.arch.tree import list_modules, parse

DOOR = Path("tests/parts.py")
SKIPS = {"skip", "skipif", "importorskip", "xfail"}


def test_nothing_is_skipped_past_the_door() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path in list_modules("tests")
        if path != DOOR
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Attribute) and node.attr in SKIPS and is_pytest(node.value)
    ]
    assert found == []


def is_pytest(node: ast.expr) -> bool:
    """`pytest` or `pytest.mark`."""
    inner = node.value if isinstance(node, ast.Attribute) and node.attr == "mark" else node
    return isinstance(inner, ast.Name) and inner.id == "pytest"
