"""Golden files: what a command prints, word for word. `OMA_UPDATE_GOLDEN=1` writes them anew, to be read in the diff."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).with_name("golden")


def assert_golden(name: str, printed: str) -> None:
    path = FOLDER / name
    if os.environ.get("OMA_UPDATE_GOLDEN"):
        path.write_text(printed, encoding="utf-8")
    assert printed == path.read_text(encoding="utf-8"), f"{name} differs; OMA_UPDATE_GOLDEN=1 writes it anew"
