"""A problem document in words: its sentence, every refusal with brief evidence, and what to do next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from rich.text import Text

from oma.cli.output import Output, visible
from oma.cli.words import guidance_lines, upstream_text

LONGEST_VALUE: Final = 120
SHOWN_KEYS: Final = ("job_id", "phase", "action", "issue_id", "holder", "field", "allowed")


def problem_lines(problem: Mapping[str, Any], name: str | None = None) -> list[Text]:
    """Error first, evidence indented under it, `next:` last."""
    sentence = visible(problem.get("detail") or problem.get("title") or "The daemon refused without a reason.")
    head = Text("error: ", style="bold red")
    head.append(f"{visible(name)}: {sentence}" if name else sentence, style="default")
    if problem.get("code"):
        head.append(f" ({visible(problem['code'])})", style="dim")
    lines = [head, *_refusal_lines(problem), *_candidate_lines(problem)]
    upstream = upstream_text(problem.get("upstream"))
    if upstream:
        lines.append(Text(f"  {upstream}"))
    lines += [
        Text(f"  {key.replace('_', ' ')}: {_brief(problem[key])}", style="dim")
        for key in SHOWN_KEYS
        if problem.get(key)
    ]
    lines += [Text(f"  {number}. {step}") for number, step in enumerate(guidance_lines(problem.get("guidance")), 1)]
    if problem.get("next"):
        lines.append(_next_line(problem["next"]))
    if problem.get("correlation_id"):
        lines.append(Text(f"correlation id: {visible(problem['correlation_id'])}", style="dim"))
    return lines


def complain_about(output: Output, problem: Mapping[str, Any], name: str | None = None) -> None:
    for line in problem_lines(problem, name):
        output.complain(line)


def _refusal_lines(problem: Mapping[str, Any]) -> list[Text]:
    """The first shows only its evidence: its sentence and its next step are the problem's own."""
    refusals = [one for one in problem.get("refusals") or () if isinstance(one, Mapping)]
    lines: list[Text] = []
    for number, refusal in enumerate(refusals):
        if number > 0:
            line = Text(f"  - {visible(refusal.get('detail', ''))}")
            line.append(f" ({visible(refusal.get('code', ''))})", style="dim")
            lines.append(line)
        evidence = refusal.get("evidence")
        if isinstance(evidence, Mapping) and evidence:
            pairs = ", ".join(f"{visible(key)}={_brief(value)}" for key, value in evidence.items())
            lines.append(Text(f"    {pairs}", style="dim"))
        if number > 0 and refusal.get("next"):
            lines.append(Text(f"    next: {visible(refusal['next'])}"))
    return lines


def _candidate_lines(problem: Mapping[str, Any]) -> list[Text]:
    candidates = [one for one in problem.get("candidates") or () if isinstance(one, Mapping)]
    return [
        Text(
            f"  --context-id {visible(one.get('context_id', ''))}  "
            f"{visible(one.get('vcenter_host', ''))}  {visible(one.get('status', ''))}"
        )
        for one in candidates
    ]


def _next_line(step: object) -> Text:
    return Text.assemble(("next: ", "bold"), visible(step))


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    shown = visible(text)
    return shown if len(shown) <= LONGEST_VALUE else shown[: LONGEST_VALUE - 1] + "…"
