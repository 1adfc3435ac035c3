"""The regression gate that noise cannot fool: instructions of the kernels against a file.

    python -m gate            # fail if a count grew more than 3 %
    python -m gate --update   # rewrite gate/instructions.json

The file holds the counts and the toolchain that they are of. Under another toolchain the
commit that last changed the file is built and counted here, and is what this checkout is
compared with.

Exit status: 0 no count grew, 1 one grew, 2 nothing could be compared.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from asv_bench.benchmarks import callgrind
from asv_bench.commits import built, git

HERE = Path(__file__).resolve().parent
FILE = HERE / "instructions.json"
ALLOWED_GROWTH = 0.03


class NotComparableError(Exception):
    """Nothing can be compared; the message says why and what to do."""


def check_build_is_current() -> None:
    """Refuse kernels that are older than their sources: they would be counted for nothing."""
    sources = [
        path for kind in ("*.pyx", "*.pxi", "*.pxd", "*.h") for path in callgrind.KERNELS.glob(kind)
    ]
    oldest = min(path.stat().st_mtime for path in callgrind.KERNELS.glob("*.so"))
    newer = [path.name for path in sources if path.stat().st_mtime > oldest]
    if newer:
        raise NotComparableError(
            f"the kernels in {callgrind.KERNELS} are older than {', '.join(newer)}: build first"
        )


def count_commit(commit: str) -> dict[str, int]:
    """Build `commit` with this machine's toolchain and count it with this checkout's cases."""
    with built(commit) as site:
        program = "import json; from asv_bench.benchmarks import callgrind; "
        program += "print(json.dumps(callgrind.count()))"
        counted = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{HERE.parent}"},
            cwd=site, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if counted.returncode:
            raise NotComparableError(f"{commit} cannot be counted:\n{counted.stderr}")
    result: dict[str, int] = json.loads(counted.stdout)
    return result


def counts_to_compare_with() -> dict[str, int]:
    """Return the file's counts, or fresh ones of its commit if the toolchain is another."""
    if not FILE.exists():
        raise NotComparableError(f"there is no {FILE}: make bench-gate-update")
    recorded: dict[str, Any] = json.loads(FILE.read_text())
    here = callgrind.toolchain()
    if recorded["toolchain"] == here:
        counts: dict[str, int] = recorded["counts"]
        return counts
    print(f"{FILE.name} is of {recorded['toolchain']}; these kernels were made by {here}.")
    if git("rev-parse", "--is-shallow-repository") == "true":
        raise NotComparableError("this clone is shallow: the file's commit cannot be counted")
    commit = git("log", "-1", "--format=%H", "--", str(FILE))
    if not commit:
        raise NotComparableError(f"{FILE.name} is in no commit: there is none to count instead")
    print(f"Counting {commit[:12]}, the commit that last changed the file, with {here}.")
    return count_commit(commit)


def compare(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """Return a line for each case that grew too much or that is in one of the two only."""
    found = []
    for case in sorted(before.keys() | after.keys()):
        if case not in before:
            found.append(f"{case}: not in the file")
        elif case not in after:
            found.append(f"{case}: in the file, but cannot be run here")
        elif after[case] > before[case] * (1 + ALLOWED_GROWTH):
            growth = after[case] / before[case] - 1
            found.append(f"{case}: {before[case]:,} -> {after[case]:,} instructions, {growth:+.1%}")
    return found


def check() -> int:
    """Compare and report; return the exit status."""
    after = callgrind.count()
    before = counts_to_compare_with()
    found = compare(before, after)
    for line in found:
        print(line)
    if found:
        print(
            f"{len(found)} of {len(after)} cases: more than {ALLOWED_GROWTH:.0%} over "
            f"{FILE.name}. If that is meant, run `make bench-gate-update`, commit the file in "
            "the same change and say why."
        )
        return 1
    total = sum(after.values()) / sum(before.values()) - 1
    print(f"{len(after)} cases, none more than {ALLOWED_GROWTH:.0%} over {FILE.name}; ", end="")
    print("all counts are equal" if after == before else f"in all {total:+.2%}")
    if any(after[case] < before[case] * (1 - ALLOWED_GROWTH) for case in after):
        print("Some count fell: `make bench-gate-update` keeps what was gained.")
    return 0


def update() -> int:
    """Rewrite the file."""
    content = {"toolchain": callgrind.toolchain(), "counts": callgrind.count()}
    FILE.write_text(json.dumps(content, indent=1) + "\n")
    print(f"{FILE.name}: {len(content['counts'])} cases, {content['toolchain']}")
    return 0


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Compare the kernels' instructions with the file")
    parser.add_argument("--update", action="store_true", help="rewrite the file instead")
    arguments = parser.parse_args()
    try:
        if reason := callgrind.missing():
            raise NotComparableError(reason)
        check_build_is_current()
        return update() if arguments.update else check()
    except (NotComparableError, RuntimeError) as error:
        print(f"bench-gate: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
