"""Every rule is kept by something that exists, and held by a test; every guard keeps a rule."""

from __future__ import annotations

import pkgutil
from typing import Any

import pytest

from docs.rules import list_scenarios, list_tests, unknown_ids, unknown_scenarios
from oma.workflow.guards import GUARDS
from oma.workflow.rules import RULES, SECTIONS, Rule

KEPT = [rule for rule in RULES if rule.kept_by]
NO_SCENARIO = {
    "6-epochs": "needs a database that is put back while the daemon is stopped",
    "6-take-over": "needs a second daemon on the same database",
    "5-awaited": "needs a run that a person gave up, and two hours",
    "4-busy": "would have to be met at the right moment",
    "2-times": "needs databases in other time zones",
    "3-old-daemon": "needs a Volume Daemon of another generation",
}


def named(rule: Rule) -> str:
    return rule.id


def resolve(name: str) -> Any:
    """The module, or what stands in it."""
    try:
        return pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return None


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_what_keeps_a_rule_exists(rule: Rule) -> None:
    assert [name for name in rule.kept_by if resolve(name) is None] == []
    assert bool(rule.kept_by) != bool(rule.yet)
    assert rule.section in SECTIONS


@pytest.mark.parametrize("rule", KEPT, ids=named)
def test_a_rule_that_is_kept_has_a_test(rule: Rule) -> None:
    assert list_tests(rule)


@pytest.mark.parametrize("rule", [rule for rule in KEPT if rule.id not in NO_SCENARIO], ids=named)
def test_a_rule_that_is_kept_is_shown(rule: Rule) -> None:
    assert list_scenarios(rule)


def test_every_guard_keeps_a_rule() -> None:
    keepers = {id(resolve(name)) for rule in RULES for name in rule.kept_by}
    assert [guard.__name__ for guard in GUARDS if id(guard) not in keepers] == []


def test_no_id_is_without_its_rule() -> None:
    assert unknown_ids() == set()
    assert unknown_scenarios() == set()
    assert len({rule.id for rule in RULES}) == len(RULES)
