"""Planted bugs by name: `python -m tests.simulation.planted NAME` lives through its seed and prints what happened.

`--json` answers for each of them (all without a name) what the simulation says with the bug in place, and without it.
"""

from __future__ import annotations

import json
import os
import sys

from tests.simulation.planted.table import PLANTED
from tests.simulation.simulate import HASHES


def main(arguments: list[str]) -> int:
    if os.environ.get(HASHES) != "0":
        own = [sys.executable, "-m", "tests.simulation.planted", *arguments]
        os.execve(sys.executable, own, {**os.environ, HASHES: "0"})
    names = [one for one in arguments if one != "--json"]
    chosen = [bug for bug in PLANTED if not names or bug.name in names]
    for bug in chosen:
        if "--json" in arguments:
            caught, clean = bug.live_through(bug.seed), bug.live_through(bug.seed, planted=False)
            said = {"name": bug.name, "with": caught.violations, "without": clean.violations}
            sys.stdout.write(json.dumps(said) + "\n")
        else:
            report = bug.live_through(bug.seed, keep_trace=True)
            sys.stdout.write("\n".join([*report.trace, f"PLANTED  {bug.sentence}", report.describe(), ""]))
    return 0 if chosen else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
