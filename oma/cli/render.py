"""What the API said, as tables and lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.text import Text

from oma.cli.output import Output, new_table, print_table, visible
from oma.cli.reading import JobView, StepView
from oma.cli.runs import Result
from oma.cli.words import guidance_lines, short_time, state_text, target_text, upstream_text
from oma.domain.states import PHASES
from oma.gui.words import duration_words, size_words

POWERED_OFF: Final = "the source VM was powered off by this failover; start it in vCenter"


def print_vms(output: Output, vms: Sequence[Mapping[str, Any]]) -> None:
    table = new_table("VM", "STATUS", "CLEAN-UP", "WHY", "VCENTER", "CONTEXT")
    for vm in vms:
        table.add_row(
            visible(vm["vm_name"]),
            state_text(vm["status"]),
            Text("recommended", "yellow") if vm["cleanup_recommended"] else Text("-", "dim"),
            visible(vm["cleanup_why"]),
            visible(vm["vcenter_host"]),
            visible(vm["context_id"]),
        )
    print_table(output, table)


def print_jobs(output: Output, jobs: Iterable[Mapping[str, Any]]) -> None:
    table = new_table("JOB", "VM", "STATUS", "PHASE", "CREATED", "TOOK", "BY")
    for job in jobs:
        table.add_row(
            visible(job["id"]),
            visible(job["vm_name"]),
            state_text(job["status"]),
            visible(job.get("phase") or "-"),
            short_time(job.get("created_at")),
            duration_words(job.get("duration_seconds")) or "-",
            visible(job.get("requested_by") or ""),
        )
    print_table(output, table)


def print_job(output: Output, view: JobView) -> None:
    """One job in full: where it stands, phases with their actions, the result or the failure with what to do."""
    if (view.document.get("plan") or {}).get("source_powered_off"):
        output.print(Text(POWERED_OFF, "bold yellow"))
    output.print(Text.assemble((f"Clean-up of {visible(view.vm_name)}: ", "bold"), state_text(view.state)))
    for name, value in _job_facts(view):
        if value:
            output.print(Text.assemble((f"  {name}: ", "dim"), value))
    for step in view.steps:
        _print_step(output, step)
    _print_ending(output, view)


def _job_facts(view: JobView) -> list[tuple[str, str]]:
    job = view.document
    return [
        ("job", visible(view.id)),
        ("context", visible(job.get("context_id") or "")),
        ("asked for by", visible(job.get("requested_by") or "")),
        ("correlation id", visible(job.get("correlation_id") or "")),
        ("created", short_time(job.get("created_at"))),
        ("ended", short_time(job.get("ended_at"))),
        ("took", duration_words(job.get("duration_seconds"))),
    ]


def _print_step(output: Output, step: StepView) -> None:
    line = Text.assemble((visible(step.name), "bold"), "  ", state_text(step.status))
    if step.duration_s is not None:
        line.append(f"  {duration_words(step.duration_s)}", "dim")
    output.print(line)
    if step.error:
        output.print(Text(f"  {visible(step.error)}", "red"))
    for action in step.actions:
        sentence = visible(action.sentence) or f"{visible(action.kind)} {target_text(action.target)}"
        output.print(Text.assemble("  ", state_text(action.state), "  ", sentence))
        upstream = upstream_text((action.error or {}).get("upstream"))
        if upstream:
            output.print(Text(f"    {upstream}", "red"))


def _print_ending(output: Output, view: JobView) -> None:
    if view.result:
        output.print(Text.assemble(("replica: ", "bold"), state_text(view.result.get("replica", "unknown"))))
        if view.result.get("next"):
            output.print(Text.assemble(("next: ", "bold"), visible(view.result["next"])))
    if view.error:
        output.print(Text.assemble(("failed: ", "bold red"), visible(view.error.get("detail", ""))))
        upstream = upstream_text(view.error.get("upstream"))
        if upstream:
            output.print(Text(f"  {upstream}", "red"))
    issues = view.document.get("issues") or ()
    for issue in issues:
        output.print(Text.assemble(("issue ", "bold yellow"), visible(issue["id"]), ": ", visible(issue["title"])))
        for number, step in enumerate(guidance_lines(issue.get("guidance")), 1):
            output.print(Text(f"  {number}. {step}"))
    if not issues:
        for number, step in enumerate(guidance_lines(view.error.get("guidance")), 1):
            output.print(Text(f"  {number}. {step}"))


def print_log_line(output: Output, line: Mapping[str, Any]) -> None:
    level = visible(line["level"])
    style = {"ERROR": "red", "WARN": "yellow", "DEBUG": "dim"}.get(level, "")
    output.print(
        Text.assemble((short_time(line["at"]), "dim"), " ", (f"{level:<5}", style), " ", visible(line["message"]))
    )


def print_plan(output: Output, answer: Mapping[str, Any]) -> None:
    """A dry run: what was observed, the actions under their phases, the risks, and the digest to confirm with."""
    plan = answer["plan"]
    if plan.get("source_powered_off"):
        output.print(Text(POWERED_OFF, "bold yellow"))
    output.print(Text(visible(answer["message"]), "bold"))
    table = new_table("VOLUME", "DISK", "SIZE", "IS NOW", "REVERT", "BECAUSE")
    for volume in plan["volumes"]:
        table.add_row(
            visible(volume["name"]),
            visible(volume["disk_id"]),
            size_words(volume["size_bytes"]),
            visible(volume["place"]),
            "yes" if volume["needs_revert"] else "no",
            visible(volume["revert_reason"]),
        )
    print_table(output, table)
    _print_list(output, "observed", plan["observed"])
    for phase in PHASES:
        sentences = [action["sentence"] for action in plan["actions"] if action["phase"] == phase.value]
        if sentences:
            _print_list(output, phase.value, sentences)
    _print_list(output, "risks", plan["risks"])
    output.print(Text.assemble(("plan digest: ", "dim"), visible(answer["plan_digest"])))


def _print_list(output: Output, title: str, sentences: Sequence[str]) -> None:
    if sentences:
        output.print(Text(f"{title}:", "bold"))
        for sentence in sentences:
            output.print(Text(f"  - {visible(sentence)}"))


def print_summary(output: Output, results: Sequence[Result]) -> None:
    """The line that answers the only question: is my replica good, and what must I do before the next failover?"""
    if len(results) == 1:
        _print_one_result(output, results[0])
        return
    table = new_table("VM", "OUTCOME", "REPLICA", "TOOK", "JOB", "NEXT")
    for result in results:
        problem = result.problem or {}
        table.add_row(
            visible(result.vm_name),
            state_text(result.outcome),
            state_text(result.answer.get("replica") or "-"),
            duration_words(result.answer.get("duration_seconds")) or "-",
            visible(result.job_id) or "-",
            visible(result.answer.get("next") or problem.get("next") or problem.get("detail") or ""),
        )
    print_table(output, table)


def _print_one_result(output: Output, result: Result) -> None:
    answer = result.answer
    output.print(Text.assemble(visible(answer.get("message") or f"{result.vm_name}: {result.outcome}")))
    if result.outcome == "accepted":
        output.print(Text.assemble(("job: ", "bold"), visible(result.job_id)))
        output.print(Text.assemble(("next: ", "bold"), f"oma jobs follow {visible(result.job_id)}"))
        return
    took = duration_words(answer.get("duration_seconds"))
    line = Text.assemble(("replica: ", "bold"), state_text(answer.get("replica", "unknown")))
    if took:
        line.append(f"  (took {took})", "dim")
    output.print(line)
    if answer.get("next"):
        output.print(Text.assemble(("next: ", "bold"), visible(answer["next"])))
