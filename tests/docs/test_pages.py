"""What the pages say is so: links lead somewhere, commands exist, generated pages are current."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from docs.generate import FOLDER, PAGES, build
from oma.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "deploy/README.md", *(ROOT / "docs").rglob("*.md")])
CURL = [
    "curl -X POST http://localhost:8082/api/v1/failover/pgtest1/cleanup-failed",
    'curl -X POST "http://localhost:8082/api/v1/failover/PhilB%20Test%20machine/cleanup-failed"',
]
FENCE = re.compile(r"^ *```(?:sh|bash)\n(.*?)^ *```", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    titles = re.findall(r"^#+ +(.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def list_commands(page: Path) -> list[str]:
    """Lines of shell fences, joined where they go on, without comments."""
    lines = "\n".join(FENCE.findall(page.read_text(encoding="utf-8"))).replace("\\\n", " ").splitlines()
    return [line.partition(" #")[0].strip() for line in lines if line.strip() and not line.strip().startswith("#")]


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_make_targets_exist(page: Path) -> None:
    for command in list_commands(page):
        if command.startswith("make "):
            run = subprocess.run(
                ["make", "--dry-run", "--always-make", *command.split()[1:]],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert run.returncode == 0, f"{command}: {run.stderr}"


@pytest.mark.parametrize("page", DOCS, ids=named)
def test_oma_commands_and_their_options_exist(page: Path) -> None:
    for command in list_commands(page):
        words = re.sub(r"^(?:\.venv/bin/|runuser -u oma -- )", "", command).split()
        if words and words[0] == "oma":
            check_command(cli, words[1:], command)


def check_command(command: click.Command, words: list[str], line: str) -> None:
    """Follows the words down the groups; every option must be one of the command's."""
    context = click.Context(command)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        assert found is not None, f"{line}: there is no {words[0]}"
        command, words = found, words[1:]
        context = click.Context(command)
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    unknown = {word.partition("=")[0] for word in words if word.startswith("-")} - options - {"-h", "--help"}
    assert unknown == set(), line


@pytest.mark.parametrize("name", sorted(PAGES))
def test_generated_pages_are_current(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == build(name), "run `make docs`"


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/clean-up-a-vm.md"])
def test_the_curl_lines_stand_word_for_word(page: str) -> None:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    assert [line for line in CURL if line not in lines] == []


def test_the_readme_begins_with_what_for_whom_and_the_two_commands() -> None:
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:45]
    text = "\n".join(first_screen)
    assert [
        word
        for word in ("failed failover", "operators", "make demo", "make test", "┌", "make demo ONCE=1")
        if word not in text
    ] == []


def test_no_page_stands_alone() -> None:
    """Each page is reached from README or docs/README."""
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in (ROOT / "README.md", ROOT / "docs/README.md")
        for link in LINK.findall(page.read_text(encoding="utf-8"))
    }
    alone = [named(page) for page in DOCS if page not in linked and page.name not in {"README.md", "CHANGELOG.md"}]
    assert alone == []
