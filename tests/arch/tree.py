"""The tree as git sees it: files that are tracked, or new and not ignored."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("appliance", "database", "migrations", "oma", "ossea", "volume_daemon")


@cache
def list_files() -> tuple[Path, ...]:
    """Relative to the root, without those that are deleted but not yet committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return tuple(sorted(Path(name) for name in set(listed.split("\0")) if name and (ROOT / name).is_file()))


def list_modules(*packages: str) -> Iterator[Path]:
    return (path for path in list_files() if path.suffix == ".py" and path.parts[0] in packages)


def read(path: Path) -> str | None:
    """The text, or None for a binary file."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))
