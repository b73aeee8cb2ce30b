"""A problem document in words: every reason with its evidence and its next step, and what becomes of the replica."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from rich.text import Text

from oma.cli.output import Output, drawn_item, visible
from oma.cli.words import guidance_lines, state_text, upstream_once
from oma.domain.verdict import SOURCE_OFF
from oma.gui.evidence import evidence_lines

MARK_STYLES: Final = {"error:": "bold red", "next:": "bold"}
LONGEST_VALUE: Final = 120
SHOWN_KEYS: Final = ("job_id", "phase", "action", "issue_id", "holder", "field", "allowed")

Line = Text | tuple[str, str, int]
"""A text as it stands, or mark, text and indent of one that may go on under its own beginning."""


def problem_lines(problem: Mapping[str, Any], name: str | None = None) -> list[Line]:
    """The source VM first where it was powered off, then what is wrong, then evidence, the replica, and `next:`."""
    refusals = [one for one in problem.get("refusals") or () if isinstance(one, Mapping)]
    told = str(problem.get("next") or "")
    lines: list[Line] = []
    if problem.get("source_powered_off") or told.startswith(SOURCE_OFF):
        lines.append(Text(SOURCE_OFF, "bold yellow"))
    if len(refusals) > 1:
        lines += _several_reasons(refusals, name)
    else:
        lines += _one_reason(problem, refusals, name)
    lines += _candidate_lines(problem)
    upstream = upstream_once(problem.get("upstream"), str(problem.get("detail") or ""))
    if upstream:
        lines.append(Text(f"  {upstream}"))
    lines += [
        Text(f"  {key.replace('_', ' ')}: {_brief(problem[key])}", style="dim")
        for key in SHOWN_KEYS
        if problem.get(key)
    ]
    lines += [(f"{number}.", step, 2) for number, step in enumerate(guidance_lines(problem.get("guidance")), 1)]
    if problem.get("replica"):
        lines.append(Text.assemble(("replica: ", "bold"), state_text(problem["replica"])))
    next_step = told.removeprefix(SOURCE_OFF).strip()
    if next_step and len(refusals) <= 1:
        lines.append(("next:", visible(next_step), 0))
    if problem.get("correlation_id"):
        lines.append(Text(f"correlation id: {visible(problem['correlation_id'])}", style="dim"))
    return lines


def complain_about(output: Output, problem: Mapping[str, Any], name: str | None = None) -> None:
    for line in problem_lines(problem, name):
        if isinstance(line, Text):
            output.complain(line)
            continue
        mark, text, indent = line
        for part in drawn_item(output.notes, mark, text, indent=indent, style=MARK_STYLES.get(mark, "")):
            output.complain(part)


def _one_reason(problem: Mapping[str, Any], refusals: list[Mapping[str, Any]], name: str | None) -> list[Line]:
    sentence = visible(problem.get("detail") or problem.get("title") or "The daemon refused without a reason.")
    whose = f"{visible(name)}: " if name else ""
    code = f" ({visible(problem['code'])})" if problem.get("code") else ""
    head = ("error:", f"{whose}{sentence}{code}", 0)
    return [head, *(line for refusal in refusals for line in _evidence(refusal, 4))]


def _several_reasons(refusals: list[Mapping[str, Any]], name: str | None) -> list[Line]:
    """Each with its own code, sentence, evidence and next step."""
    whose = f"{visible(name)}: " if name else ""
    lines: list[Line] = [("error:", f"{whose}Nothing was done, for {len(refusals)} reasons.", 0)]
    for number, refusal in enumerate(refusals, 1):
        sentence, code = visible(refusal.get("detail", "")), visible(refusal.get("code", ""))
        lines.append((f"{number}.", f"{sentence} ({code})", 2))
        lines += _evidence(refusal, 5)
        if refusal.get("next"):
            lines.append(("next:", visible(refusal["next"]), 5))
    return lines


def _evidence(refusal: Mapping[str, Any], indent: int) -> list[Line]:
    evidence = refusal.get("evidence")
    if not isinstance(evidence, Mapping):
        return []
    found = evidence_lines(evidence, str(refusal.get("detail", "")))
    return [(f"{visible(key)}:", visible(words), indent) for key, words in found]


def _candidate_lines(problem: Mapping[str, Any]) -> list[Line]:
    candidates = [one for one in problem.get("candidates") or () if isinstance(one, Mapping)]
    return [
        Text(
            f"  --context-id {visible(one.get('context_id', ''))}  "
            f"{visible(one.get('vcenter_host', ''))}  {visible(one.get('status', ''))}"
        )
        for one in candidates
    ]


def _brief(value: object) -> str:
    if isinstance(value, Mapping) and value.get("kind"):
        target = value.get("target") or {}
        whom = target.get("volume_name") or target.get("volume_id") or target.get("vm_id") or ""
        return visible(f"{value['kind']} {whom}".strip())
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    shown = visible(text)
    return shown if len(shown) <= LONGEST_VALUE else shown[: LONGEST_VALUE - 1] + "…"
