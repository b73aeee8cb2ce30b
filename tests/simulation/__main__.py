"""`python -m tests.simulation SEED`: lives through one seed again and prints what happened."""

from __future__ import annotations

import os
import sys

from tests.simulation.simulate import HASHES, run_seed


def main() -> int:
    if os.environ.get(HASHES) != "0":
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]], {**os.environ, HASHES: "0"}
        )
    report = run_seed(int(sys.argv[1]), keep_trace=True)
    sys.stdout.write("\n".join([*report.trace, report.describe(), ""]))
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
