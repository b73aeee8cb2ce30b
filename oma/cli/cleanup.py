"""`oma cleanup`: the main job, for one VM or several."""

from __future__ import annotations

from collections.abc import Sequence

import click

from oma.cli.exits import Exit, worst
from oma.cli.options import Invocation, takes_invocation
from oma.cli.output import Output
from oma.cli.problems import complain_about
from oma.cli.render import print_plan, print_summary
from oma.cli.runs import Order, Result, run_all
from oma.cli.spoken import options_of, read_options
from oma.cli.watch import LiveWatch, PlainWatch


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="VM...")
@click.option("--dry-run", is_flag=True, help="Show the plan; change nothing.")
@click.option("--phases", metavar="A,B", help="Only these phases, by step name and without gaps.")
@click.option("--context-id", metavar="ID", help="Which VM, where several carry the name.")
@click.option("--expect-plan", metavar="DIGEST", help="Run only if the plan is still the one of this digest.")
@click.option("--end-holders", is_flag=True, help="End this failover's own hung driver injection; needs --reason.")
@click.option("--end-test", is_flag=True, help="End a finished drill; needs --reason.")
@click.option("--force", is_flag=True, help="After a failed run: leave behind what won't go; needs --reason.")
@click.option("--reason", metavar="TEXT", help="Why; it stands in the audit.")
@click.option("--destination-vm-id", metavar="ID", help="With --force: the never started VM of a live failover.")
@click.option("--snapshot", "snapshots", multiple=True, metavar="VOLUME=SNAPSHOT", help="Go back to this snapshot.")
@click.option("--resume", is_flag=True, help="Go on with the VM's parked run; alone or with --force.")
@click.option("--no-wait", is_flag=True, help="Start it and don't follow it.")
@click.option("--max-parallel", type=click.IntRange(1, 100), default=8, show_default=True, help="VMs run at once.")
@takes_invocation
def cleanup(
    invocation: Invocation,
    *,
    names: tuple[str, ...],
    dry_run: bool,
    phases: str | None,
    context_id: str | None,
    expect_plan: str | None,
    end_holders: bool,
    end_test: bool,
    force: bool,
    reason: str | None,
    destination_vm_id: str | None,
    snapshots: tuple[str, ...],
    resume: bool,
    no_wait: bool,
    max_parallel: int,
) -> int:
    """Clean up VMs after a failed failover or rollback.

    Each VM is run on its own: one that is refused does not stop the others. Ctrl-C stops the watching, never a run.
    --end-holders, --end-test and --force exclude each other; a word that a person says is for one VM.
    """
    names = tuple(dict.fromkeys(names))
    words = read_options(
        {
            "end_holders": end_holders,
            "end_test": end_test,
            "force": force,
            "reason": reason,
            "destination_vm_id": destination_vm_id,
            "resume": resume,
        },
        snapshots,
        given={"dry_run": dry_run, "phases": phases, "expect_plan": expect_plan},
    )
    if words.spoken and len(names) > 1:
        raise click.UsageError(f"{options_of(words)} speaks of one VM, which was looked at; give one name with it.")
    if len(names) > 1 and (context_id or expect_plan):
        raise click.UsageError("--context-id and --expect-plan speak of one VM; give one name with them.")
    order = Order(
        dry_run=dry_run,
        phases=tuple(part.strip() for part in phases.split(",") if part.strip()) if phases is not None else None,
        context_id=context_id,
        expect_plan=expect_plan,
        wait=not no_wait,
        at_once=max_parallel,
        words=words,
    )
    output = invocation.output()
    watch = LiveWatch(output, names) if output.live and not dry_run else PlainWatch(output, names)
    try:
        with watch:
            results = run_all(invocation.client(), names, order, watch.on_update, looks=watch.looks)
    except KeyboardInterrupt:
        _tell_interrupted(output, watch.job_ids)
        return Exit.INTERRUPTED
    show_results(output, results)
    return worst(result.exit for result in results)


def show_results(output: Output, results: Sequence[Result]) -> None:
    """Results to stdout, what went wrong to stderr."""
    if output.as_json:
        output.print_json({"results": [result.as_json() for result in results]})
    else:
        for result in results:
            if result.outcome == "dry run":
                print_plan(output, result.answer)
        shown = [result for result in results if result.outcome != "dry run"]
        if shown and (len(results) > 1 or any(result.problem is None for result in shown)):
            print_summary(output, shown)
    for result in results:
        if result.problem is not None:
            complain_about(output, result.problem, result.vm_name if len(results) > 1 else None)


def _tell_interrupted(output: Output, job_ids: Sequence[str]) -> None:
    output.complain("Interrupted. What was started goes on in the daemon.")
    for job_id in job_ids:
        output.complain(f"next: oma jobs follow {job_id}")
