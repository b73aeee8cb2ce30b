"""No write and no call of the daemon that changes something is without its crash points, and a story reaches each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Protocol

import pytest

from oma import ports
from tests.arch.tree import PRODUCT, list_modules, parse
from tests.crash.matrix import Census
from tests.crash.ports import CHANGING, LOOKING, ONLY_LOOKING, bare, build_registry, methods_of

BESIDE = {"cli", "demo"}
"""Rooms of other programs than the daemon."""
CLIENTS = ("ossea.client", "ossea.submitting", "volume_daemon.client")
KNOWS_CLIENTS = {
    "oma/adapters/cloudstack.py": "implements `Cloud`",
    "oma/adapters/volume_daemon.py": "implements `Volumes`",
    "oma/runtime/bootstrap.py": "makes the client and closes it",
    "oma/runtime/cloudstack.py": "makes the client and closes it",
}
WRITES_ROWS = {
    "oma/store/transactions.py": "the store's one way through the door",
    "oma/store/journal.py": "implements `JournalStore`",
    "oma/store/supervision.py": "implements `Controls` and `Watch`",
    "oma/store/epoch_store.py": "implements `Epochs`",
}
WRITES_FILES = {"oma/runtime/epoch_note.py": "implements `EpochNote`"}
LOOKS = ("list_", "find_", "get_", "query_", "wait_", "scan_", "honours_", "health", "holders", "server_", "last_")
"""How the clients' methods begin that change nothing."""
FILE_WRITES = {
    *("write_text", "write_bytes", "writelines", "fsync", "unlink", "mkdir", "makedirs", "rmdir", "rmtree"),
    *("rename", "renames", "touch", "symlink", "symlink_to", "hardlink_to", "chmod", "chown"),
    *("copy2", "copyfile", "copytree", "mkstemp", "mkdtemp", "NamedTemporaryFile", "TemporaryDirectory"),
}
"""Methods and functions of whatever module that change a file, by name."""
OF_MODULES = {"open", "write", "replace", "remove", "link", "truncate", "move", "copy"}
"""Likewise, of `os` and `shutil`; elsewhere these names mean something else."""
OPENS_TO_WRITE = frozenset("wax+")
PROCESSES = {"Popen", "create_subprocess_exec", "create_subprocess_shell", "fork", "kill", "killpg"}


def list_ports() -> list[type]:
    return [
        each
        for each in vars(ports).values()
        if isinstance(each, type) and getattr(each, "_is_protocol", False) and each.__module__ == ports.__name__
    ]


def find_unclassified(port: type) -> set[str]:
    if port in ONLY_LOOKING:
        return set()
    return set(methods_of(port) ^ (CHANGING.get(port, frozenset()) | LOOKING.get(port, frozenset())))


@pytest.mark.parametrize("port", list_ports(), ids=lambda port: port.__name__)
def test_every_method_of_every_port_is_classified(port: type) -> None:
    """One that is new goes into `CHANGING`, and has its points, or into `LOOKING`, if it really only looks."""
    assert find_unclassified(port) == set()


def test_a_new_method_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cloud(Protocol):
        async def list_volumes(self) -> None: ...

        async def submit_expunge(self) -> None: ...

    monkeypatch.setitem(LOOKING, Cloud, frozenset({"list_volumes"}))
    assert find_unclassified(Cloud) == {"submit_expunge"}


def test_every_point_is_reached_by_a_story(census: list[Census]) -> None:
    reached = {bare(occasion) for taken in census for occasion in taken.reached}
    assert build_registry() - reached == set()


def _daemon_modules() -> Iterator[tuple[str, ast.Module]]:
    return ((str(path), parse(path)) for path in list_modules("oma") if path.parts[1] not in BESIDE)


def _calls(tree: ast.AST) -> Iterator[ast.Attribute]:
    return (node.func for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))


def test_only_the_adapters_and_whoever_makes_them_know_the_clients() -> None:
    found = {
        path
        for path, tree in _daemon_modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith(CLIENTS)
    }
    assert found == set(KNOWS_CLIENTS)


def test_only_the_stores_of_the_ports_write_rows() -> None:
    """Everybody else is handed a connection by them, inside of their transaction."""
    found = {
        path
        for path, tree in _daemon_modules()
        for called in _calls(tree)
        if called.attr == "write"
        and ast.unparse(called.value).lstrip("_").removeprefix("self._") in {"door", "transactions"}
    }
    assert found == set(WRITES_ROWS)


def writes_files(tree: ast.Module) -> bool:
    """Whether anything in it changes a file, by any of the usual ways."""
    return any(_writes(node) for node in ast.walk(tree) if isinstance(node, ast.Call))


def _writes(call: ast.Call) -> bool:
    match call.func:
        case ast.Name(id="open") | ast.Attribute(attr="open"):
            return _is_of_a_module(call.func) or _opens_to_write(call)
        case ast.Attribute(attr=name):
            return name in FILE_WRITES or (name in OF_MODULES and _is_of_a_module(call.func))
        case ast.Name(id=name):
            return name in FILE_WRITES
        case _:
            return False


def _is_of_a_module(called: ast.expr) -> bool:
    return isinstance(called, ast.Attribute) and ast.unparse(called.value) in {"os", "shutil"}


def _opens_to_write(call: ast.Call) -> bool:
    modes = [*call.args, *(one.value for one in call.keywords if one.arg == "mode")]
    texts = [one.value for one in modes if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return any(len(text) <= len("w+bt") and OPENS_TO_WRITE & set(text) for text in texts)


@pytest.mark.parametrize(
    "line",
    [
        'open(path, "w")',
        'path.open("ab")',
        'path.open(mode="r+")',
        "os.open(path, os.O_WRONLY)",
        "os.write(handle, data)",
        "os.replace(one, other)",
        "shutil.move(one, other)",
        "mkstemp()",
        "path.write_text(text)",
    ],
)
def test_a_new_way_to_write_a_file_would_be_noticed(line: str) -> None:
    assert writes_files(ast.parse(line))


@pytest.mark.parametrize("line", ["open(path)", 'path.open("rb")', "text.replace(one, other)", "door.open(url)"])
def test_looking_is_not_writing(line: str) -> None:
    assert not writes_files(ast.parse(line))


def test_only_listed_modules_write_files_and_none_starts_or_ends_a_process() -> None:
    assert {path for path, tree in _daemon_modules() if writes_files(tree)} == set(WRITES_FILES)
    assert [path for path, tree in _daemon_modules() for called in _calls(tree) if called.attr in PROCESSES] == []


@pytest.mark.parametrize(
    ("module", "port"), [("oma/adapters/cloudstack.py", ports.Cloud), ("oma/adapters/volume_daemon.py", ports.Volumes)]
)
def test_an_adapters_method_that_only_looks_asks_the_client_only_to_look(module: str, port: type) -> None:
    (tree,) = [tree for path, tree in _daemon_modules() if path == module]
    asked = {
        (function.name, called.attr)
        for function in ast.walk(tree)
        if isinstance(function, ast.AsyncFunctionDef)
        for called in _calls(function)
        if ast.unparse(called.value) == "self._client" and not called.attr.startswith(LOOKS)
    }
    assert {method for method, _ in asked} <= CHANGING[port]
    assert asked, "the adapter calls its client by another name now"


def test_nothing_in_the_product_listens_to_the_points() -> None:
    """No setting, variable or request can let a daemon die: whoever wants that needs code in its very process."""
    named = [
        str(path)
        for path in list_modules(*PRODUCT)
        for node in ast.walk(parse(path))
        if (isinstance(node, ast.alias) and node.name == "listening")
        or (isinstance(node, ast.Attribute) and ast.unparse(node) == "crashpoints.listening")
    ]
    assert named == []
