"""One clean-up, told while it happens: the caller's answer and the job's own events."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console

from oma.demo.operator import cleanup_path
from oma.demo.stack import Stack

SHOWN_VM: Final = "pgtest1"
ENDS: Final = frozenset({"job_completed", "job_parked", "job_failed", "job_cancelled"})
HEADINGS: Final = frozenset({"step_started"})
STEPS: Final = frozenset({"step_completed", "step_skipped", "step_failed"})
ACTIONS: Final = frozenset({"action_executed", "action_skipped", "action_failed", "point_of_no_return_passed"})


async def show_one(stack: Stack, console: Console, vm_name: str = SHOWN_VM) -> None:
    """Asks for the clean-up without waiting, then follows the job's events to its end."""
    console.print(f"  $ curl -X POST {stack.operator.url}{cleanup_path(vm_name)}", style="dim", markup=False)
    accepted = await stack.operator.clean_up(vm_name, headers={"Prefer": "respond-async"})
    job_id = accepted.body.get("job_id")
    if job_id is None:
        console.print(f"  {accepted.word}: {accepted.body.get('detail')}", style="red", markup=False)
        return
    async for event in stack.operator.follow(str(job_id)):
        line = tell(event)
        if line:
            console.print(line, markup=False)
        if event["type"] in ENDS:
            break
    job = await stack.operator.ask("GET", f"/api/v1/jobs/{job_id}")
    result = job.body.get("result") or {}
    console.print(f"  replica: {result.get('replica')}. {result.get('next', '')}", style="green", markup=False)


def tell(event: dict[str, Any]) -> str:
    """One line of the story; empty for what only programs want to know."""
    kind, sentence = event["type"], event["sentence"]
    if kind in HEADINGS:
        return f"  {event['data'].get('phase', sentence)}"
    if kind in ACTIONS:
        return f"      {sentence}"
    if kind in STEPS or kind in ENDS:
        return f"    → {sentence}"
    return ""
