"""What the API said, as tables and lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from rich.text import Text

from oma.cli.output import Output, new_table, print_item, print_table, visible
from oma.cli.reading import JobView, StepView
from oma.cli.runs import Result
from oma.cli.words import guidance_lines, short_time, state_text, target_text, upstream_once, upstream_text
from oma.domain.states import PHASES
from oma.domain.verdict import RUN_EXACTLY, SOURCE_OFF
from oma.gui.words import duration_words, size_words

WIDE_SCREEN: Final = 160
"""Columns from which the table of the VMs has room for everything."""


def print_vms(output: Output, vms: Sequence[Mapping[str, Any]]) -> None:
    """On a narrow terminal the reason keeps its room; vCenter and context are told where a name stands twice."""
    names = [vm["vm_name"] for vm in vms]
    narrow = output.data.is_terminal and output.data.width < WIDE_SCREEN
    table = new_table("VM", "STATUS", "CLEAN-UP", "WHY", *(() if narrow else ("VCENTER", "CONTEXT")))
    if narrow:
        for column in table.columns[:3]:
            column.no_wrap = True
    for vm in vms:
        place = [visible(vm["vcenter_host"]), visible(vm["context_id"])]
        twice = f" (on {place[0]}, context {place[1]})" if narrow and names.count(vm["vm_name"]) > 1 else ""
        table.add_row(
            visible(vm["vm_name"]),
            state_text(vm["status"]),
            Text("recommended", "yellow") if vm["cleanup_recommended"] else Text("-", "dim"),
            f"{visible(vm['cleanup_why'])}{twice}",
            *(() if narrow else place),
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
        output.print(Text(SOURCE_OFF, "bold yellow"))
    output.print(Text.assemble((f"Clean-up of {visible(view.vm_name)}: ", "bold"), state_text(view.state)))
    for name, value in _job_facts(view):
        if value:
            output.print(Text.assemble((f"  {name}: ", "dim"), value))
    for step in view.steps:
        _print_step(output, step, str(view.error.get("detail", "")))
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


def _print_step(output: Output, step: StepView, failure: str) -> None:
    """What `failure`, the sentence at the end, says is not said here too."""
    line = Text.assemble((visible(step.name), "bold"), "  ", state_text(step.status))
    if step.duration_s is not None:
        line.append(f"  {duration_words(step.duration_s)}", "dim")
    output.print(line)
    if step.error and step.error != failure:
        output.print(Text(f"  {visible(step.error)}", "red"))
    for action in step.actions:
        told = action.sentence if action.sentence != failure else ""
        sentence = visible(told) or f"{visible(action.kind)} {target_text(action.target)}"
        output.print(Text.assemble("  ", state_text(action.state), "  ", sentence))
        upstream = upstream_text((action.error or {}).get("upstream")) if told else ""
        if upstream:
            output.print(Text(f"    {upstream}", "red"))


def _print_ending(output: Output, view: JobView) -> None:
    failure = str(view.error.get("detail", ""))
    if view.error:
        output.print(Text.assemble(("failed: ", "bold red"), visible(failure)))
        upstream = upstream_once(view.error.get("upstream"), failure)
        if upstream:
            output.print(Text(f"  {upstream}", "red"))
    issues = view.document.get("issues") or ()
    for issue in issues:
        title = "" if issue["title"] == failure else f": {visible(issue['title'])}"
        output.print(Text.assemble(("issue ", "bold yellow"), visible(issue["id"]), title))
        _print_guidance(output, issue.get("guidance"))
    if not issues:
        _print_guidance(output, view.error.get("guidance"))
    ending = view.result or view.error
    if ending:
        output.print(Text.assemble(("replica: ", "bold"), state_text(ending.get("replica", "unknown"))))
        if ending.get("next"):
            output.print(Text.assemble(("next: ", "bold"), _without_source_off(ending["next"])))


def _print_guidance(output: Output, guidance: object) -> None:
    for number, step in enumerate(guidance_lines(guidance), 1):
        print_item(output, f"{number}.", step)


def _without_source_off(next_step: object) -> str:
    """It is said once, above everything."""
    return visible(str(next_step).removeprefix(SOURCE_OFF).strip())


def print_log_line(output: Output, line: Mapping[str, Any]) -> None:
    level = visible(line["level"])
    style = {"ERROR": "red", "WARN": "yellow", "DEBUG": "dim"}.get(level, "")
    output.print(
        Text.assemble((short_time(line["at"]), "dim"), " ", (f"{level:<5}", style), " ", visible(line["message"]))
    )


def print_plan(output: Output, answer: Mapping[str, Any]) -> None:
    """A dry run as somebody reads it at night: what becomes of the replica and what to do first, the command last."""
    plan = answer["plan"]
    chosen = answer.get("phases") or [phase.value for phase in PHASES]
    command = _command_in(answer.get("next", ""))
    if plan.get("source_powered_off"):
        output.print(Text(SOURCE_OFF, "bold yellow"))
    output.print(Text(visible(answer["message"]), "bold"))
    output.print(Text.assemble(("replica afterwards: ", "bold"), state_text(answer.get("replica", "unknown"))))
    print_item(output, "next:", _next_before(answer.get("next", ""), command), indent=0)
    _print_list(output, "observed", plan["observed"])
    for phase in PHASES:
        sentences = [action["sentence"] for action in plan["actions"] if action["phase"] == phase.value]
        if sentences and phase.value in chosen:
            _print_list(output, phase.value, sentences)
        elif sentences:
            output.print(Text(f"{phase.value}: {len(sentences)} planned, not asked for", "dim"))
    _print_volumes(output, plan["volumes"])
    _print_list(output, "risks", plan["risks"], mark="!")
    estimate = plan.get("estimate") or {}
    if estimate.get("words"):
        words = f"{visible(estimate['words'])} ({visible(estimate.get('basis', ''))})"
        output.print(Text.assemble(("time: ", "bold"), words))
    output.print(Text.assemble(("plan digest: ", "dim"), visible(answer["plan_digest"])))
    if command:
        output.print(Text("to run exactly this plan:", "bold"))
        output.print(Text(f"  {visible(command)}"))


def _print_volumes(output: Output, volumes: Sequence[Mapping[str, Any]]) -> None:
    table = new_table("VOLUME", "DISK", "SIZE", "IS NOW", "REVERT", "BECAUSE")
    for volume in volumes:
        table.add_row(
            visible(volume["name"]),
            visible(volume["disk_id"]),
            size_words(volume["size_bytes"]),
            visible(volume["place"]),
            "yes" if volume["needs_revert"] else "no",
            visible(volume["revert_reason"]),
        )
    print_table(output, table)


def _command_in(next_step: str) -> str:
    return next_step.partition(RUN_EXACTLY)[2]


def _next_before(next_step: str, command: str) -> str:
    """The command itself stands at the end, where a screen stops."""
    told = next_step.removeprefix(SOURCE_OFF).strip()
    if not command:
        return visible(told)
    before = told.partition(RUN_EXACTLY)[0]
    return visible(f"{before}Read the plan; the command that runs exactly it is the last line.")


def _print_list(output: Output, title: str, sentences: Sequence[str], *, mark: str = "-") -> None:
    if sentences:
        output.print(Text(f"{title}:", "bold"))
        for sentence in sentences:
            print_item(output, mark, visible(sentence))


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
            state_text(result.answer.get("replica") or problem.get("replica") or "-"),
            duration_words(result.answer.get("duration_seconds")) or "-",
            visible(result.job_id) or "-",
            visible(result.answer.get("next") or problem.get("next") or problem.get("detail") or ""),
        )
    print_table(output, table)


def _print_one_result(output: Output, result: Result) -> None:
    answer = result.answer
    if str(answer.get("next") or "").startswith(SOURCE_OFF):
        output.print(Text(SOURCE_OFF, "bold yellow"))
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
        output.print(Text.assemble(("next: ", "bold"), _without_source_off(answer["next"])))
