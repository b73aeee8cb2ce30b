"""What keeps, shows and tests a rule: found in the code, so that the page cannot promise more than there is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from oma.demo.scenarios import SCENARIOS
from oma.demo.scenarios.shown import SHOWN
from oma.workflow.rules import RULES, Rule

TESTS = Path(__file__).parents[1] / "tests"


def list_keepers(rule: Rule) -> list[str]:
    """Without the package that all share."""
    return [name.removeprefix("oma.") for name in rule.kept_by]


def list_scenarios(rule: Rule) -> list[str]:
    return list(SHOWN.get(rule.id, ()))


def list_tests(rule: Rule) -> list[str]:
    return sorted(marked().get(rule.id, ()))


@cache
def marked() -> dict[str, list[str]]:
    """Rule id → tests that carry `@pytest.mark.rule` with it, a whole module by its `pytestmark`."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        place = str(path.relative_to(TESTS))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for rule_id in _of_module(tree):
            found.setdefault(rule_id, []).append(place)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                for rule_id in _rule_ids(node.decorator_list):
                    found.setdefault(rule_id, []).append(f"{place}::{node.name}")
    return found


def _of_module(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(one, ast.Name) and one.id == "pytestmark" for one in node.targets
        ):
            marks = node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
            yield from _rule_ids(list(marks))


def _rule_ids(marks: list[ast.expr]) -> Iterator[str]:
    for mark in marks:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.rule":
            yield from (one.value for one in mark.args if isinstance(one, ast.Constant) and isinstance(one.value, str))


def unknown_ids() -> set[str]:
    """Ids that tests or scenarios name and that no rule has."""
    known = {rule.id for rule in RULES}
    return (set(marked()) | set(SHOWN)) - known


def unknown_scenarios() -> set[str]:
    """VMs that no scenario has, of those that are said to show a rule."""
    return {vm_name for shown in SHOWN.values() for vm_name in shown} - {one.vm_name for one in SCENARIOS}
