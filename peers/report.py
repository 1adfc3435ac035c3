"""Compare with every installed peer, and write the figures into the documentation.

    python -m peers.report [--threads N] [--dry-run]

Each state of the memory (see ``measure.py``) is measured twice, in processes of their own.
Written are the tables of ``docs/performance.md`` and ``README.md``, between two marker
lines, and the chart ``docs/_static/performance.png``.
"""

import argparse
import datetime
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from asv_bench.benchmarks import workloads
from asv_bench.benchmarks.callgrind import toolchain
from asv_bench.benchmarks.peer_calls import PEERS
from peers import chart
from peers.measure import FRESH, REUSED, STATES, WRITE

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "docs" / "_static" / "performance.png"
BEGIN, END = "<!-- benchmark table: begin -->", "<!-- benchmark table: end -->"
CAPTION = (
    "How many times faster than `tf.image.crop_and_resize`, memory warm: 1 is TensorFlow, "
    "further right is faster, and the red lines are where writing the result alone would be."
)
ALT = "Bars of the speed of each library over TensorFlow's"
REFERENCE = "TensorFlow"
# What the ratios are taken of: with `out=` nobody pays for new pages.
OURS = {"warm": REUSED, "cold": FRESH}
NOTHING, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
Times = dict[str, dict[str, dict[str, float]]]


def measure(state: str, threads: int, names: list[str] | None, check: bool) -> dict[str, Any]:
    """Run ``measure.py`` once and return what it printed."""
    command = [sys.executable, "-m", "peers.measure", state, str(threads)]
    command += ["--workloads", *names] if names else []
    command += [] if check else ["--skip-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def mean(runs: list[Times]) -> Times:
    """Return the mean of the runs' medians."""
    return {
        method: {
            name: {
                label: sum(run[method][name][label] for run in runs) / len(runs) for label in row
            }
            for name, row in rows.items()
        }
        for method, rows in runs[0].items()
    }


def ratios(times: Times, method: str, label: str, over: str = REFERENCE) -> dict[str, float]:
    """Return how many times faster than `over` `label` is, by workload."""
    return {
        name: row[over] / row[label]
        for name, row in times[method].items()
        if over in row and label in row
    }


def geometric_mean(values: dict[str, float]) -> float:
    """Return the geometric mean."""
    return math.exp(sum(map(math.log, values.values())) / len(values))


def spread(runs: list[Times], label: str) -> str:
    """Say how far the runs' ratios to TensorFlow are apart."""
    apart = {}
    for method in runs[0]:
        first, second = (ratios(run, method, label) for run in runs)
        for name in first:
            larger, smaller = sorted((first[name], second[name]), reverse=True)
            apart[f"{name}, {method}"] = larger / smaller - 1
    ordered = sorted(apart, key=lambda row: apart[row])
    middle, worst = ordered[len(ordered) // 2], ordered[-1]
    return (
        f"Two runs: their ratios differ by {apart[middle]:.0%} in the median, by "
        f"{apart[worst]:.0%} at most ({worst})."
    )


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a table, numbers to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def number(value: float | None) -> str:
    """Return three digits of a value, or a dash."""
    if value is None:
        return NOTHING
    if value >= 99.95:
        return f"{value:.0f}"
    return f"{value:.{1 if value >= 9.995 else 2 if value >= 0.9995 else 3}f}"


def full_table(times: Times, method: str, ours: str) -> list[str]:
    """Return the table of one method: ratios, then milliseconds."""
    own = [ours, FRESH] if ours != FRESH else [FRESH]
    labels = [*own, WRITE, *(label for label in PEERS if label != FRESH)]
    over_reference = ratios(times, method, ours)
    over_resize = ratios(times, method, ours, "OpenCV resize")
    over_limit = ratios(times, method, ours, WRITE)
    rows = [
        [
            f"`{name}`",
            f"**{number(over_reference[name])}**",
            number(over_resize.get(name)),
            number(1 / over_limit[name]),
            *(number(row.get(label)) for label in labels),
        ]
        for name, row in times[method].items()
    ]
    means = [f"**{number(geometric_mean(over_reference))}**"]
    means += [number(geometric_mean(over_resize)) if over_resize else NOTHING]
    rows.append(["geometric mean", *means, *[""] * (1 + len(labels))])
    head = ["workload", f"{TIMES} {REFERENCE}", f"{TIMES} OpenCV resize", "÷ limit", *labels]
    return markdown(head, rows)


def short_table(times: Times, ours: str) -> list[str]:
    """Return the README's table: bilinear, warm."""
    head = ["workload", "image → crops", "TensorFlow", "OpenCV resize", "cropkit", "times faster"]
    rows = []
    for name, row in times["bilinear"].items():
        shape = workloads.SHAPES[name]
        crop_height, crop_width = shape.crop_size
        _, height, width, depth = shape.image
        what = f"{shape.dtype} {height}x{width}x{depth} → {shape.num_boxes} of "
        what += f"{crop_height}x{crop_width}"
        values = [number(row.get(label)) for label in (REFERENCE, "OpenCV resize", ours)]
        rows.append([f"`{name}`", what, *values, f"**{number(row[REFERENCE] / row[ours])}**"])
    mean_ratio = geometric_mean(ratios(times, "bilinear", ours))
    rows.append(["geometric mean", "", "", "", "", f"**{number(mean_ratio)}**"])
    return markdown(head, rows)


def cpu_model() -> str:
    """Return the name of this machine's CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def conditions(threads: int, versions: dict[str, str]) -> str:
    """Say where, with what and when."""
    from cropkit._cpu import choose_instruction_set

    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    plural = "thread" if threads == 1 else "threads"
    return (
        f"{cpu_model()}, {os.cpu_count()} CPUs, {choose_instruction_set()}; {threads} {plural} "
        f"for everybody; Linux {platform.release().split('-')[0]}, {platform.libc_ver()[0]} "
        f"{platform.libc_ver()[1]}, Python {platform.python_version()}, {toolchain()}; {listed}; "
        f"{datetime.datetime.now(datetime.UTC).date()}."
    )


def replace_between_markers(
    path: Path, lines: list[str], begin: str = BEGIN, end: str = END
) -> None:
    """Put `lines` between the marker lines of a file."""
    text = path.read_text()
    if text.count(begin) != 1 or text.count(end) != 1:
        raise SystemExit(f"{path}: expected one line {begin!r} and one {end!r}")
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    path.write_text("\n".join([f"{before}{begin}\n", *lines, f"\n{end}{after}"]))


def documents(runs: dict[str, list[Times]], where: str) -> dict[Path, list[str]]:
    """Return what belongs between the markers of each file."""
    lines = [f"![{ALT}](_static/{CHART.name})", "", CAPTION, "", where, ""]
    lines += [
        "First how many times faster than TensorFlow and than OpenCV's resize, and how many times "
        "slower than the write limit; then the medians in milliseconds.",
        "",
    ]
    for state, ours in OURS.items():
        times = mean(runs[state])
        for method in times:
            lines += [f"## {state.capitalize()}, {method}", ""]
            lines += [*full_table(times, method, ours), ""]
        lines += [spread(runs[state], ours), ""]
    warm = mean(runs["warm"])
    short = [*short_table(warm, OURS["warm"]), ""]
    short += [f"Milliseconds, bilinear, memory warm: results are reused. {where}"]
    return {ROOT / "docs" / "performance.md": lines[:-1], ROOT / "README.md": short}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Compare with all installed peers")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--workloads", nargs="*", help="some only; nothing is then written")
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    arguments = parser.parse_args()
    runs: dict[str, list[Times]] = {state: [] for state in STATES}
    for run in (1, 2):
        for state in STATES:
            print(f"run {run}, memory {state} ...", file=sys.stderr, flush=True)
            measured = measure(state, arguments.threads, arguments.workloads, check=run == 1)
            runs[state].append(measured["times"])
    where = conditions(arguments.threads, measured["versions"])
    texts = documents(runs, where)
    if arguments.dry_run or arguments.workloads:
        print("\n\n".join("\n".join(lines) for lines in texts.values()))
        return
    for path, lines in texts.items():
        replace_between_markers(path, lines)
    title = f"Memory warm, {arguments.threads} threads, {cpu_model()}"
    CHART.parent.mkdir(exist_ok=True)
    chart.draw(mean(runs["warm"]), OURS["warm"], title, CHART)
    print("\n".join(texts[ROOT / "README.md"]))


if __name__ == "__main__":
    main()
