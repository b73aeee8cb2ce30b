"""What no file of the tree holds: vague names, unfinished marks, this machine's paths, registries' addresses."""

from __future__ import annotations

import re

from tests.arch.tree import PRODUCT, ROOT, list_files, read

# Patterns are put together here so that this file does not hold what it looks for.
REGISTRIES = [
    "pypi" + r"\.org",
    "python" + r"hosted\.org",
    "npm" + r"js\.(?:org|com)",
    "crates" + r"\.io",
    "proxy" + r"\.golang\.org",
    "maven" + r"\.(?:org|apache\.org)",
    "(?:deb|security)" + r"\.debian\.org",
    "archive" + r"\.ubuntu\.com",
]
MACHINE_PATHS = ["/" + r"home/\w+/", "/" + r"Users/\w+/", r"(?<![\w.<>/-])/" + "work/", re.escape(f"{ROOT}/")]
UNFINISHED = [r"\bTO" + r"DO\b", r"\bFIX" + r"ME\b", r"\bX" + r"XX\b"]
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
LONGEST = 400


def find_lines(patterns: list[str]) -> list[str]:
    sought = re.compile("|".join(patterns))
    return [
        f"{path}:{number}: {line.strip()[:120]}"
        for path in list_files()
        for number, line in enumerate((read(path) or "").splitlines(), start=1)
        if sought.search(line)
    ]


def test_no_file_names_a_package_registry() -> None:
    assert find_lines(REGISTRIES) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert find_lines(MACHINE_PATHS) == []


def test_no_file_is_marked_as_unfinished() -> None:
    assert find_lines(UNFINISHED) == []


def test_no_module_has_a_vague_name() -> None:
    vague = [str(path) for path in list_files() if VAGUE & {part.removesuffix(".py") for part in path.parts}]
    assert vague == []


def test_no_source_file_outgrows_its_subject() -> None:
    kinds = {".py", ".js", ".css", ".html", ".sh", ".j2"}
    long = {
        str(path): lines
        for path in list_files()
        if path.suffix in kinds and (lines := (read(path) or "").count("\n")) > LONGEST
    }
    assert long == {}


def test_every_package_is_installed_and_checked() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = {path.parts[0] for path in list_files() if path.suffix == ".py"} - {"benchmarks", "docs", "tests"}
    assert found == set(PRODUCT)
    assert [line for line in project.splitlines() if line == f"packages = [{quoted(PRODUCT)}]"]
    everything = sorted({*PRODUCT, "benchmarks", "docs", "tests"})
    assert [line for line in project.splitlines() if line == f"packages = [{quoted(everything)}]"]


def quoted(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)
