"""Every declared dependency is used and explained, and nothing undeclared is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib

from tests.arch.tree import PRODUCT, ROOT, list_modules, parse

# Loaded by the scheme of the database address, without an import of ours.
BY_ADDRESS = {"pymysql"}


def list_declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[\[<>=!~;]", line)[0].strip() for line in project["dependencies"]}


def list_imported() -> set[str]:
    names = set()
    for path in list_modules(*PRODUCT):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add((node.module or "").partition(".")[0])
    return names - set(sys.stdlib_module_names) - set(PRODUCT)


# Names that differ from the package's, and packages that only come with a declared one and are part of its interface.
PACKAGES = {
    "prometheus_client": "prometheus-client",
    "annotated_types": "pydantic",
    "pydantic_core": "pydantic",
    "multidict": "aiohttp",
    "yarl": "aiohttp",
    "markupsafe": "jinja2",
}


def test_what_is_imported_is_declared() -> None:
    assert {PACKAGES.get(name, name) for name in list_imported()} - list_declared() == set()


def test_what_is_declared_is_imported() -> None:
    assert list_declared() - BY_ADDRESS - {PACKAGES.get(name, name) for name in list_imported()} == set()


def test_each_dependency_is_explained() -> None:
    text = (ROOT / "docs/explanation/dependencies.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| ([a-z0-9-]+) \|", text, flags=re.MULTILINE)) - {"package"}
    assert explained == list_declared()


def test_everything_declared_is_pinned_with_hashes() -> None:
    for name in ("runtime.txt", "dev.txt"):
        text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
        blocks = re.findall(r"^[^\s#].*(?:\n[ \t].*)*", text, flags=re.MULTILINE)
        assert [block for block in blocks if "--hash=sha256:" not in block or "==" not in block] == []
        assert list_declared() - {block.partition("==")[0] for block in blocks} == set()


def test_what_is_tested_is_what_is_installed() -> None:
    """The development pins hold the very versions of the runtime pins."""
    runtime, development = (
        set(
            re.findall(
                r"^[A-Za-z0-9._-]+==[^ \\;]+", (ROOT / "requirements" / name).read_text(encoding="utf-8"), re.MULTILINE
            )
        )
        for name in ("runtime.txt", "dev.txt")
    )
    assert runtime
    assert runtime - development == set()
