"""Time the modules for frameworks beside the frameworks' operators and the plain functions.

    python -m peers.frameworks tensorflow|jax|torch THREADS

One framework a process, since their threads disturb each other. The calls of a case take turns,
as in ``measure.py``. Prints JSON: of each case the milliseconds of each call.
"""

import argparse
import json
import os
import sys

from asv_bench.benchmarks.framework_calls import CASES
from peers.measure import STATES, time_in_turn


def main() -> None:
    """Start again with the memory's state fixed, time, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=CASES)
    parser.add_argument("threads", type=int)
    arguments = parser.parse_args()
    state = STATES["warm"]
    if any(os.environ.get(name) != value for name, value in state.items()):
        os.environ |= state | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        os.execv(sys.executable, [sys.executable, "-m", "peers.frameworks", *sys.argv[1:]])
    cases = CASES[arguments.framework](arguments.threads)
    json.dump({name: time_in_turn(case) for name, case in cases.items()}, sys.stdout)


if __name__ == "__main__":
    main()
