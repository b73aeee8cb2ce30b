"""The units as they are installed, with the programs that were built here in the place of the installed ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.parts import require_part

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "systemd"
UNITS = ("oma.service", "volume-daemon.service")
INSTALLED = "/opt/oma/bin"


def read_unit(name: str) -> dict[str, list[str]]:
    """All values by key; sections are left out, no key stands in two."""
    values: dict[str, list[str]] = {}
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values.setdefault(key, []).append(value)
    return values


def copy_units(target: Path) -> list[Path]:
    """Copies whose `ExecStart` names the commands beside this Python."""
    built = str(Path(sys.executable).parent)
    copies = []
    for name in UNITS:
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert f"ExecStart={INSTALLED}/" in text
        copy = target / name
        copy.write_text(text.replace(f"ExecStart={INSTALLED}/", f"ExecStart={built}/"), encoding="utf-8")
        copies.append(copy)
    return copies


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    program = str(command[0])
    require_part(program, shutil.which(program) is not None)
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
