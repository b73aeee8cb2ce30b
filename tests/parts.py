"""Parts that a test needs and a machine may lack: a database server, a browser, root."""

from __future__ import annotations

import os

import pytest


def require_part(name: str, present: bool) -> None:
    """Skips the test, in one clear line, where `name` is missing; with `CI=true` it fails instead.

    Every test or fixture that needs more than Python asks through this one function.
    """
    if present:
        return
    sentence = f"{name} is missing here (make system installs it where it runs as root on Debian)"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{sentence}; with CI=true nothing may be skipped for that", pytrace=False)
    pytest.skip(sentence)
