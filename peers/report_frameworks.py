"""Compare the modules for frameworks, and write the table of docs/performance.md.

    python -m peers.report_frameworks [--threads N] [--dry-run]

Each framework has processes of its own, measured twice (``frameworks.py``).
"""

import argparse
import json
import os
import subprocess
import sys

from asv_bench.benchmarks.framework_calls import CASES, OURS, PLAIN, THEIRS
from peers.report import ROOT, TIMES, conditions, markdown, number, replace_between_markers

BEGIN, END = "<!-- framework table: begin -->", "<!-- framework table: end -->"
NAMES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
RUNS = 2


def run(framework: str, threads: int) -> dict[str, dict[str, float]]:
    """Measure in a new process; return each case's microseconds."""
    command = [sys.executable, "-m", "peers.frameworks", framework, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    return {
        case: {label: 1e3 * one for label, one in times.items()}
        for case, times in json.loads(done.stdout).items()
    }


def table(threads: int) -> list[str]:
    """Return the lines of the table: microseconds, and ratios."""
    head = ["framework", "work", OURS, THEIRS, PLAIN, f"{TIMES} {THEIRS}", f"{TIMES} {PLAIN}"]
    rows = []
    for framework in CASES:
        runs = [run(framework, threads) for _ in range(RUNS)]
        for case in runs[0]:
            mean = {label: sum(one[case][label] for one in runs) / RUNS for label in runs[0][case]}
            theirs, plain = mean.get(THEIRS), mean[PLAIN]
            rows.append([
                NAMES[framework], case, number(mean[OURS]), number(theirs), number(plain),
                number(None if theirs is None else mean[OURS] / theirs),
                number(mean[OURS] / plain),
            ])  # fmt: skip
    return markdown(head, rows)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Compare the modules for frameworks")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    arguments = parser.parse_args()
    where = conditions(arguments.threads, {})
    lines = [*table(arguments.threads), "", f"Microseconds, two runs' means. {where}"]
    print("\n".join(lines))
    if not arguments.dry_run:
        replace_between_markers(ROOT / "docs" / "performance.md", lines, BEGIN, END)


if __name__ == "__main__":
    main()
