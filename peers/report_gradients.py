"""Compare the gradients with TensorFlow's, and write the table of docs/performance.md.

    python -m peers.report_gradients [--threads N] [--dry-run]

TensorFlow's image gradient is right only in deterministic mode, which a process keeps once it
has it: each mode has processes of its own, and each is measured twice. In a process the
libraries take turns, as in ``measure.py``.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asv_bench.benchmarks import workloads
from peers.measure import STATES, time_in_turn
from peers.report import (
    ROOT,
    TIMES,
    conditions,
    geometric_mean,
    markdown,
    number,
    replace_between_markers,
)

BEGIN, END = "<!-- gradient table: begin -->", "<!-- gradient table: end -->"
MODES = ("deterministic", "racing")
IMAGE, BOXES = "image", "boxes"
OURS, THEIRS = "cropkit", "TensorFlow"


def calls(name: str, threads: int, mode: str) -> dict[str, Callable[[], Any]]:
    """Return the calls of one workload, tensors made beforehand; the bits are compared first."""
    import numpy as np
    import tensorflow as tf

    from cropkit import crop_and_resize_grad_boxes, crop_and_resize_grad_image

    work = workloads.make_gradient(name)
    grads = workloads.crop_gradients(work)
    tensors = [tf.constant(a) for a in (grads, work.boxes, work.box_indices)]
    image, shape = tf.constant(work.image), tf.constant(work.image.shape, tf.int32)
    own = (grads, work.boxes, work.box_indices, work.image.shape)
    kept = np.zeros(work.image.shape, np.float32)
    found: dict[str, Callable[[], Any]] = {
        f"{IMAGE} {THEIRS}": lambda: tf.raw_ops.CropAndResizeGradImage(
            grads=tensors[0], boxes=tensors[1], box_ind=tensors[2], image_size=shape,
            T=tf.float32, method="bilinear",
        ),
        f"{IMAGE} {OURS}": lambda: crop_and_resize_grad_image(
            *own, out=kept, num_threads=threads
        ),
        f"{BOXES} {THEIRS}": lambda: tf.raw_ops.CropAndResizeGradBoxes(
            grads=tensors[0], image=image, boxes=tensors[1], box_ind=tensors[2],
            method="bilinear",
        ),
        f"{BOXES} {OURS}": lambda: crop_and_resize_grad_boxes(
            grads, work.image, work.boxes, work.box_indices, num_threads=threads
        ),
    }  # fmt: skip
    if mode == "deterministic":
        theirs, ours = (np.asarray(found[f"{IMAGE} {who}"]()) for who in (THEIRS, OURS))
        if not np.array_equal(theirs.view(np.uint32), ours.view(np.uint32)):
            raise SystemExit(f"{name}: the image gradients differ in their bits")
    return found


def measure(mode: str, threads: int) -> None:
    """Time every workload in this process and print JSON."""
    settings = STATES["warm"] | {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": str(threads)}
    if any(os.environ.get(key) != value for key, value in settings.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | settings)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    if mode == "deterministic":
        tf.config.experimental.enable_op_determinism()
    names = workloads.GRADIENT_NAMES
    times = {name: time_in_turn(calls(name, threads, mode)) for name in names}
    json.dump({"times": times, "tensorflow": tf.__version__}, sys.stdout)


def run(mode: str, threads: int) -> dict[str, Any]:
    """Measure in a new process."""
    command = [
        sys.executable,
        "-m",
        "peers.report_gradients",
        "--threads",
        str(threads),
        "--measure",
        mode,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def table(times: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Return the lines of the table: milliseconds, and how many times faster."""
    head = ["workload", "gradient", f"{THEIRS}, deterministic", f"{THEIRS}, racing", OURS]
    head += [f"{TIMES} deterministic", f"{TIMES} racing"]
    rows, means = [], []
    for what in (IMAGE, BOXES):
        over: dict[str, dict[str, float]] = {mode: {} for mode in MODES}
        for name in workloads.GRADIENT_NAMES:
            theirs = {mode: times[mode][name][f"{what} {THEIRS}"] for mode in MODES}
            for mode in MODES:
                over[mode][name] = theirs[mode] / times[mode][name][f"{what} {OURS}"]
            rows.append([
                f"`{name}`", what, *(number(theirs[mode]) for mode in MODES),
                number(times["deterministic"][name][f"{what} {OURS}"]),
                *(f"**{number(over[mode][name])}**" for mode in MODES),
            ])  # fmt: skip
        shown = (f"**{number(geometric_mean(over[mode]))}**" for mode in MODES)
        means.append(["geometric mean", what, "", "", "", *shown])
    return markdown(head, rows + means)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Compare the gradients with TensorFlow's")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dry-run", action="store_true", help="print, write nothing")
    parser.add_argument("--measure", choices=MODES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.threads)
        return
    runs = {mode: [run(mode, arguments.threads) for _ in range(2)] for mode in MODES}
    times = {
        mode: {
            name: {
                label: sum(one["times"][name][label] for one in ones) / len(ones)
                for label in ones[0]["times"][name]
            }
            for name in workloads.GRADIENT_NAMES
        }
        for mode, ones in runs.items()
    }
    where = conditions(arguments.threads, {"tensorflow": runs[MODES[0]][0]["tensorflow"]})
    lines = [*table(times), "", f"Milliseconds, memory warm, two runs' means. {where}"]
    print("\n".join(lines))
    if not arguments.dry_run:
        path: Path = ROOT / "docs" / "performance.md"
        replace_between_markers(path, lines, BEGIN, END)


if __name__ == "__main__":
    main()
