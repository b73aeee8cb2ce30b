"""Every rule asks for a metric that a daemon has, with label values it knows, and names a runbook that is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from oma.runtime.metrics import Metrics as OmaMetrics
from volume_daemon.server.metrics import Metrics as VolumeDaemonMetrics

ROOT = Path(__file__).resolve().parents[2]
RULES = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/alerts/oma.rules.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]


def list_metrics(registry: CollectorRegistry) -> set[str]:
    """As the exposition names them; a counter carries `_total`."""
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_a_rule_asks_for_metrics_that_exist(rule: dict[str, Any]) -> None:
    known = list_metrics(OmaMetrics().registry) | list_metrics(VolumeDaemonMetrics().registry) | {"up"}
    asked = set(re.findall(r"\b(?:oma|volume_daemon)_\w+|\bup\b", rule["expr"]))
    assert asked
    assert asked - known == set()


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_a_rule_leads_to_its_runbook(rule: dict[str, Any]) -> None:
    runbook = rule["annotations"]["runbook"]
    assert f"`{rule['alert']}`" in (ROOT / runbook).read_text(encoding="utf-8")
