"""`except Exception` stands only at the outermost edges: loops, requests and threads that must outlive any error."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.arch.tree import PRODUCT, list_modules, parse

# Module, function that catches everything, and why nothing further out could.
EDGES = {
    ("appliance/web.py", "map_problems"): "a request: whatever it was becomes a problem document",
    ("database/commits.py", "_call"): "one writer among several in a commit: its error goes to it alone",
    ("database/writer.py", "_run"): "the writer's thread: no caller waits for ever, the next batch follows",
    ("oma/cli/main.py", "run"): "a call of the command: a sentence and an exit code instead of a traceback",
    ("oma/cli/runs.py", "_ended_somehow"): "the thread of one VM: the other VMs go on",
    ("oma/runtime/daemon.py", "_within"): "a stage of the stop: the next one follows all the same",
    ("oma/runtime/loops.py", "_turn"): "a loop of the daemon: the next turn follows",
    ("oma/runtime/worker.py", "_work"): "a run: it is parked with an issue, the daemon goes on",
    ("oma/workflow/circuits.py", "_ask"): "a trial: the circuit moves on, whatever a strange answer made it raise",
    ("oma/workflow/sweep.py", "_answer"): "a shared question: every asker gets the error, none hangs",
    ("ossea/jobs.py", "_run"): "the loop that follows jobs: no waiter hangs on a fault of ours",
    ("volume_daemon/server/holders.py", "work"): "the thread of a scan: whoever waits for it is told",
    ("volume_daemon/server/opening.py", "_try_once"): "a start: the daemon answers why it waits, and tries again",
    (
        "volume_daemon/server/cloud.py",
        "_serve",
    ): "a look at volumes: whoever waits for it is told, the next look goes on",
    ("volume_daemon/server/carrying.py", "carry_out"): "an operation: it ends as failed, the daemon goes on",
    ("volume_daemon/server/carrying.py", "_see_off"): "a fault that comes again: tried again as long as makes sense",
    ("volume_daemon/server/carrying.py", "_give_up"): "the last words of an operation whose journal is gone too",
}

BROAD = {"Exception", "BaseException"}


def is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(each, ast.Name) and each.id in BROAD for each in caught)


def passes_on(handler: ast.ExceptHandler) -> bool:
    """Ends by raising again what it caught: it only tidied up."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def find_catches(node: ast.AST, function: str = "") -> Iterator[tuple[str, int]]:
    """The innermost function and the line of each handler that swallows everything."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ExceptHandler) and is_broad(child) and not passes_on(child):
            yield function, child.lineno
        inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield from find_catches(child, inner)


def test_everything_is_caught_only_at_the_listed_edges() -> None:
    found = {
        (str(path), function): line for path in list_modules(*PRODUCT) for function, line in find_catches(parse(path))
    }
    assert {
        f"{path}:{line} in {function}" for (path, function), line in found.items() if (path, function) not in EDGES
    } == set()


def test_no_listed_edge_is_gone() -> None:
    found = {(str(path), function) for path in list_modules(*PRODUCT) for function, _ in find_catches(parse(path))}
    assert set(EDGES) - found == set()
