"""The doors of the house hold, and a broken one is noticed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.arch.tree import PRODUCT, ROOT

# Where one forbidden line is put, and a word of the contract that it breaks.
BURGLARIES = {
    "oma/domain/states.py": ("import oma.runtime", "downwards only"),
    "oma/workflow/runner.py": ("import sqlalchemy", "reach no library"),
    "oma/domain/plan.py": ("import structlog", "standard library alone"),
    "oma/http/app.py": ("import oma.store", "never the store"),
    "oma/gui/pages.py": ("import oma.workflow.bus", "round the service"),
    "ossea/client.py": ("import database", "ossea stands alone"),
    "volume_daemon/client.py": ("import oma.domain", "never knows oma"),
    "database/door.py": ("import ossea.errors", "database stands alone"),
    "appliance/web.py": ("import volume_daemon.client", "the floor"),
    "oma/service/queries.py": ("import appliance.settings", "Settings are read"),
    "oma/adapters/cloudstack.py": ("import ossea.simulator", "drives the simulator"),
    "oma/adapters/volume_daemon.py": ("import volume_daemon.server", "through its client"),
}


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([program, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)


def test_every_import_goes_through_a_door() -> None:
    run = lint_imports(ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_forbidden_import_breaks_its_contract(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".importlinter", tmp_path)
    for package in PRODUCT:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, (line, _) in BURGLARIES.items():
        with (tmp_path / name).open("a", encoding="utf-8") as module:
            module.write(f"\n{line}\n")

    run = lint_imports(tmp_path)

    printed = re.sub(r"\s+", " ", run.stdout.split("Broken contracts")[0])
    broken = {sentence for _, sentence in BURGLARIES.values() if re.search(rf"{sentence}[^.]*? BROKEN", printed)}
    assert broken == {sentence for _, sentence in BURGLARIES.values()}, run.stdout + run.stderr
