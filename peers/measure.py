"""Time every installed peer and this library, in turn, in this process; print JSON.

    python -m peers.measure warm|cold THREADS

Memory decides as much as arithmetic, so its state is fixed by glibc's settings, with which
the program starts itself again:

warm    nobody pays for new pages: results are reused where a library can, and the heap
        keeps what is freed
cold    everybody does: each result is new, and a large one is new memory
"""

import argparse
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

STATES = {
    "warm": {
        "MALLOC_MMAP_THRESHOLD_": "4294967296",
        "MALLOC_TRIM_THRESHOLD_": "8589934592",
        "MALLOC_TOP_PAD_": "268435456",
    },
    "cold": {"MALLOC_MMAP_THRESHOLD_": "1048576"},
}
REUSED, FRESH, WRITE = "cropkit out=", "cropkit", "write limit"

# Each peer's turn starts when the threads of the one before have stopped spinning, and with
# calls that are not timed.
PAUSE, UNTIMED, TIMED = 0.004, 0.003, 0.004
ROUNDS_MIN, ROUNDS_MAX, ROUNDS_SECONDS = 7, 40, 1.2

THREADS = 1  # of everybody; main sets it

_WRITE = """
#include <stddef.h>
#include <string.h>
#include <emmintrin.h>
/* The result's bytes, each thread its share; streaming stores bypass the caches. */
void write_all(char *p, size_t n, int threads, int stream)
{
    #pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        const size_t begin = n / threads * t / 64 * 64;
        const size_t end = t + 1 == threads ? n / 64 * 64 : n / threads * (t + 1) / 64 * 64;
        if (!stream) {
            memset(p + begin, 1, end - begin);
            continue;
        }
        const __m128i v = _mm_set1_epi8(1);
        for (size_t i = begin; i < end; i += 64) {
            _mm_stream_si128((__m128i *)(p + i), v);
            _mm_stream_si128((__m128i *)(p + i + 16), v);
            _mm_stream_si128((__m128i *)(p + i + 32), v);
            _mm_stream_si128((__m128i *)(p + i + 48), v);
        }
        _mm_sfence();
    }
}
"""


def writer(shape: tuple[int, ...], threads: int, stream: bool, reuse: bool) -> Callable[[], Any]:
    """Return a call that writes a float32 result's bytes and reads nothing."""
    import numpy as np

    from asv_bench.benchmarks.c_helper import load_c

    library = load_c(_WRITE, "-fopenmp")
    size = 4 * int(np.prod(shape))
    kept = np.zeros(size + 64, np.uint8) if reuse else None

    def call() -> Any:
        out = np.empty(size + 64, np.uint8) if kept is None else kept
        start = ctypes.c_void_p(out.ctypes.data + -out.ctypes.data % 64)
        library.write_all(start, ctypes.c_size_t(size), threads, int(stream))
        return out

    return call


def time_in_turn(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Return each call's median in milliseconds; the calls take turns, A B C A B C ..."""
    import numpy as np

    times: dict[str, list[float]] = {label: [] for label in calls}
    for call in calls.values():
        call()
    rounds = ROUNDS_MIN
    turn = 0
    while turn < rounds:
        start = time.perf_counter()
        for label, call in calls.items():
            time.sleep(PAUSE)
            times[label] += one_turn(call)
        if turn == 0:
            seconds = time.perf_counter() - start
            rounds = int(min(ROUNDS_MAX, max(ROUNDS_MIN, ROUNDS_SECONDS / seconds)))
        turn += 1
    return {label: 1e3 * float(np.median(samples)) for label, samples in times.items()}


def one_turn(call: Callable[[], Any]) -> list[float]:
    """Return the seconds of each timed call of one peer's turn."""
    until = time.perf_counter() + UNTIMED
    while time.perf_counter() < until:
        call()
    samples: list[float] = []
    while sum(samples) < TIMED:
        start = time.perf_counter()
        result = call()
        samples.append(time.perf_counter() - start)
        del result  # after the clock: giving memory back is nobody's work here
    return samples


def installed_peers() -> list[Any]:
    """Return the peers whose libraries can be imported; TensorFlow must be among them."""
    from asv_bench.benchmarks import workloads
    from asv_bench.benchmarks.peer_calls import PEERS, CannotRunError

    found, tiny = [], workloads.make("tiny")
    for peer in PEERS.values():
        try:
            peer(tiny, "bilinear", 1 if peer.label != "TensorFlow" else THREADS)
        except ImportError as error:
            print(f"{peer.label}: {error}", file=sys.stderr)
            continue
        except CannotRunError:
            pass
        found.append(peer)
    if PEERS["TensorFlow"] not in found:
        raise SystemExit("TensorFlow is what all are compared with: make peers installs it")
    return found


def prepare(peers: list[Any], work: Any, method: str, state: str) -> dict[str, Callable[[], Any]]:
    """Return the calls to time, one a peer that can do this, ours, and the write limit."""
    from asv_bench.benchmarks.peer_calls import CannotRunError, Cropkit

    calls: dict[str, Callable[[], Any]] = {}
    for kind in peers:
        try:
            peer = kind(work, method, THREADS)
        except CannotRunError:
            continue
        calls[peer.label] = peer
        if state == "warm" and kind is not Cropkit and hasattr(peer, "reuse"):
            peer.reuse()
    warm = state == "warm"
    if warm:
        reused = Cropkit(work, method, THREADS)
        reused.reuse()
        calls[REUSED] = reused
    for threads in {1, THREADS}:
        for stream in (False, True):
            label = f"{WRITE} {threads} {stream}"
            calls[label] = writer(work.result_shape, threads, stream, reuse=warm)
    return calls


def check_peers(peers: list[Any], work: Any, method: str) -> None:
    """Raise unless every peer computes the crops that TensorFlow computes."""
    import numpy as np

    from asv_bench.benchmarks.peer_calls import PEERS, CannotRunError, check

    expected = np.asarray(PEERS["TensorFlow"](work, method, THREADS)())
    for kind in peers:
        try:
            peer = kind(work, method, THREADS)
        except CannotRunError:
            continue
        check(peer, work, method, expected)


def versions() -> dict[str, str]:
    """Return the version of everything that was timed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    names = ("cropkit", "numpy", "tensorflow-cpu", "opencv-python-headless", "onnxruntime", "torch")
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Time all installed peers in turn")
    parser.add_argument("state", choices=STATES)
    parser.add_argument("threads", type=int)
    parser.add_argument("--workloads", nargs="*", default=None)
    parser.add_argument("--skip-check", action="store_true", help="the crops were checked before")
    arguments = parser.parse_args()
    settings = STATES[arguments.state] | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    settings["OMP_NUM_THREADS"] = str(arguments.threads)
    if any(os.environ.get(key) != value for key, value in settings.items()):
        # glibc and OpenMP read their settings once, at the start.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | settings)

    from asv_bench.benchmarks import workloads

    global THREADS
    THREADS = arguments.threads
    peers = installed_peers()
    times: dict[str, dict[str, dict[str, float]]] = {}
    for method in workloads.METHODS:
        times[method] = {}
        for name in arguments.workloads or workloads.NAMES:
            if not arguments.skip_check:
                check_peers(peers, workloads.make(name, workloads.smooth), method)
            calls = prepare(peers, workloads.make(name), method, arguments.state)
            row = time_in_turn(calls)
            kinds = [label for label in row if label.startswith(WRITE)]
            row[WRITE] = min(row.pop(label) for label in kinds)
            times[method][name] = row
            print(f"{arguments.state} {method} {name}", file=sys.stderr, flush=True)
    json.dump({"times": times, "versions": versions()}, sys.stdout)


if __name__ == "__main__":
    main()
