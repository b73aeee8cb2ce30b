"""Whatever the Volume Daemon writes, sends or signals has crash points around it: found in its source, not listed."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ossea.client import CloudStack
from tests.arch.tree import list_modules, parse

READING = ("list_", "find_", "query_", "wait_", "use", "aclose", "honours_")
"""How methods of CloudStack's client begin that ask, wait or belong to the client itself."""
CLOUD_CHANGES = {
    name
    for name, method in vars(CloudStack).items()
    if callable(method) and not name.startswith(("_", *READING)) and name != "server_offset"
} | {"honours_custom_job_id"}
"""All others change something; the last one sends a job too, to see what becomes of it."""
LOCAL_CHANGES = {"unlink", "replace", "write", "write_text", "write_bytes", "mkdir", "rename", "rmdir", "touch"}
ON_PATHS = {"path", "probe", "draft", "os", "stream", "file"}
"""Receivers of those calls that are files; `dataclasses.replace` and the door's `write` are told apart by them."""
SIGNALS = {"pidfd_send_signal", "kill", "killpg", "create_subprocess_exec"}

INSIDE = {
    ("volume_daemon/server/nbd.py", "_remove"): "volume_daemon.nbd.remove",
    ("volume_daemon/server/nbd.py", "_replace"): "volume_daemon.nbd.write",
    ("volume_daemon/server/nbd.py", "_try_writing"): "volume_daemon.nbd.probe.within",
    ("volume_daemon/server/nbd.py", "_execute"): "volume_daemon.nbd.reload",
    ("volume_daemon/server/signals.py", "send"): "volume_daemon.holders.term and .kill",
}
"""Functions whose callers stand in the points' block."""
HARMLESS = {
    ("volume_daemon/server/nbd.py", "_remove_drafts"): "only what nobody reads; done again at each start",
}


def is_guarded(node: ast.With | ast.AsyncWith) -> bool:
    """`with SOME_CHANGE:`, by the house's way of writing it; or the door's one way in, which is handed its change."""
    names = [item.context_expr.id for item in node.items if isinstance(item.context_expr, ast.Name)]
    return any(name.isupper() or name == "change" for name in names)


def find_changes(node: ast.AST, function: str = "", *, guarded: bool = False) -> Iterator[tuple[str, int, str]]:
    """Function, line and call of every change that stands in no guarded block."""
    for child in ast.iter_child_nodes(node):
        inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        inside = guarded or (isinstance(child, ast.With | ast.AsyncWith) and is_guarded(child))
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute) and not inside and changes(child.func):
            yield function, child.lineno, ast.unparse(child.func)
        yield from find_changes(child, inner, guarded=inside)


def changes(called: ast.Attribute) -> bool:
    name, receiver = called.attr, ast.unparse(called.value)
    if name in CLOUD_CHANGES or name in SIGNALS:
        return True
    if receiver.endswith("_door") or receiver == "door":
        return name == "write"
    return name in LOCAL_CHANGES and receiver.rpartition(".")[2] in ON_PATHS


def list_unguarded() -> dict[tuple[str, str], str]:
    return {
        (str(path), function): f"{path}:{line} {call}"
        for path in list_modules("volume_daemon")
        if path.name != "client.py"
        for function, line, call in find_changes(parse(path))
    }


def test_every_change_has_its_crash_points() -> None:
    found = list_unguarded()
    assert {place: call for place, call in found.items() if place not in INSIDE and place not in HARMLESS} == {}


def test_no_exception_to_it_is_gone() -> None:
    assert (set(INSIDE) | set(HARMLESS)) - set(list_unguarded()) == set()


def test_it_sees_what_it_is_to_see() -> None:
    source = "async def f(self):\n    await self._door.write(x)\n    await cloud.detach_volume(v)\n    path.unlink()\n"
    assert [call for _, _, call in find_changes(ast.parse(source))] == [
        "self._door.write",
        "cloud.detach_volume",
        "path.unlink",
    ]
    assert {"attach_volume", "create_tags", "destroy_vm"} <= CLOUD_CHANGES
    assert not {"list_volumes", "wait_job", "query_job"} & CLOUD_CHANGES
