"""Threads that behave: how many, fork, spinning, interrupts, concurrent calls."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cropkit
from cropkit import _threads
from tests.support.children import PATIENCE, python

ROOT = Path(__file__).parent.parent

# A call that starts a team even on one CPU, and what must come out of it.
CALL = """
import json, os, sys, threading, time
import numpy as np
import cropkit
from cropkit import _threads
image = np.random.default_rng(0).random((2, 40, 50, 3), np.float32)
boxes = np.random.default_rng(1).random((40, 4), np.float32)
indices = np.arange(40) % 2
def call(num_threads=2):
    return cropkit.crop_and_resize(image, boxes, indices, (50, 50), num_threads=num_threads)
expected = call(1)
def right(num_threads=2):
    return call(num_threads).tobytes() == expected.tobytes()
assert right()
"""


def ask(code: str, **environment: Any) -> Any:
    """Run `code` after `CALL` in a child; what it dumps as JSON."""
    return json.loads(python(CALL + code, **environment).stdout)


@pytest.fixture(autouse=True)
def nothing_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test as if the environment said nothing about threads."""
    for name in ("CROPKIT_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


# ---- fork ----------------------------------------------------------------------------

# Forks, calls in the child, and returns its exit status. Without the cure the child waits
# for its team forever.
FORK = """
import signal
def fork(in_child=right):
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if in_child() else 1)
        finally:
            os._exit(2)
    for _ in range(1000):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    print("the child hangs", file=sys.stderr, flush=True)
    os._exit(3)
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that has fork")


@needs_fork
def test_a_child_of_fork_computes() -> None:
    code = FORK + "json.dump([[fork(), right()] for _ in range(10)], sys.stdout)"
    assert ask(code) == [[0, True]] * 10


@needs_fork
def test_a_child_of_a_child_computes() -> None:
    code = FORK + "json.dump(fork(lambda: right() and fork() == 0 and right()), sys.stdout)"
    assert ask(code) == 0


@needs_fork
def test_a_fork_in_another_thread_computes() -> None:
    code = FORK + """
results = []
def other():
    results.append(right())
    for _ in range(5):
        results.append(fork())
        results.append(right())
thread = threading.Thread(target=other)
thread.start()
thread.join()
json.dump(results, sys.stdout)
"""  # fmt: skip
    assert ask(code) == [True, *[0, True] * 5]


@needs_fork
def test_a_fork_while_another_thread_is_in_a_region_computes() -> None:
    code = FORK + """
stop, wrong = threading.Event(), []
def other():
    while not stop.is_set():
        if not right():
            wrong.append(1)
thread = threading.Thread(target=other)
thread.start()
results = [fork() for _ in range(10)]
stop.set()
thread.join()
json.dump([results, wrong], sys.stdout)
"""  # fmt: skip
    assert ask(code) == [[0] * 10, []]


@needs_fork
def test_a_forked_pool_computes() -> None:
    code = """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    results = [pool.apply_async(right) for _ in range(8)]
    json.dump([result.get(20) for result in results], sys.stdout)
"""
    assert ask(code) == [True] * 8


@needs_fork
def test_where_the_team_stays_children_are_serial() -> None:
    code = FORK + """
from cropkit._kernels import _openmp
pauses = []
def pause():
    pauses.append(os.getpid())
    return False
_openmp.pause = pause
def serial():
    return _threads.team_size(8, 10**9) == 1 and right(8)
def child():
    # Nor may a child pause: it would wait for threads that it does not have.
    return serial() and fork(serial) == 0 and serial() and pauses == [os.getppid()]
results = [fork(child), _threads.team_size(8, 10**9), right(8)]
json.dump(results, sys.stdout)
"""  # fmt: skip
    assert ask(code) == [0, 8, True]


# ---- spinning ------------------------------------------------------------------------

openmp = pytest.mark.skipif(
    not _threads.openmp_version(), reason="needs a build with OpenMP: CROPKIT_BUILD_OPENMP=1"
)


def spin_count(**environment: Any) -> int:
    """Return what GNU OpenMP takes for its spin count in a child, and check the child's own."""
    code = """
import os
before = dict(os.environ)
import cropkit
image = [[[[1.0], [2.0]], [[3.0], [4.0]]]]
cropkit.crop_and_resize(image, [[0, 0, 1, 1]], [0], (2, 2), num_threads=2)
assert dict(os.environ) == before
"""
    text = python(code, OMP_DISPLAY_ENV="verbose", **environment).stderr
    lines = [line for line in text.splitlines() if "GOMP_SPINCOUNT" in line]
    if not lines:
        pytest.skip("needs GNU OpenMP, which prints GOMP_SPINCOUNT for OMP_DISPLAY_ENV=verbose")
    return int(lines[0].split("'")[1])


@openmp
def test_idle_workers_do_not_spin_for_long() -> None:
    assert 0 < spin_count() <= 1000


@openmp
def test_the_users_own_spin_count_is_left_alone() -> None:
    assert spin_count(GOMP_SPINCOUNT=123456) == 123456


@openmp
def test_the_users_own_wait_policy_is_left_alone() -> None:
    assert spin_count(OMP_WAIT_POLICY="passive") == 0
    assert spin_count(OMP_WAIT_POLICY="active") > 10**6


@openmp
def test_show_runtime_before_a_call_does_not_change_spinning() -> None:
    code = "import cropkit, io; cropkit.show_runtime(io.StringIO())"
    text = python(code, OMP_DISPLAY_ENV="verbose").stderr
    if "GOMP_SPINCOUNT" in text:
        assert "GOMP_SPINCOUNT = '1000'" in text


# ---- interrupts ----------------------------------------------------------------------


@pytest.mark.parametrize("num_threads", [1, 2])
def test_an_interrupt_is_answered_within_the_call(num_threads: int) -> None:
    # A second thread sends the signal as soon as the call has written its first value, and
    # so never too early. Every crop row reads two rows of its own, twice as wide, whose pixels
    # are misaligned and swapped: the call takes a second or two.
    code = f"""
import os, signal, threading, time
import numpy as np
import cropkit
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell put us behind
memory = np.zeros(300 * 2000 * 8 + 1, np.uint8)
image = memory[1:].view(">f8").reshape(1, 300, 2000, 1)
boxes = np.tile(np.float32([0, 0, 1, 1]), (640, 1))
out = np.full((640, 100, 1000, 1), -1, np.float32)
def interrupt():
    while (out[:, 0, 0, 0] == -1).all():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt, daemon=True).start()
try:
    cropkit.crop_and_resize(
        image, boxes, None, (100, 1000), out=out, num_threads={num_threads})
except KeyboardInterrupt:
    written = (out == 0).sum()
    assert 0 < written < out.size, written
    print("interrupted")
np.testing.assert_array_equal(  # and a next call works
    cropkit.crop_and_resize(image, boxes[:2], None, (9, 9), num_threads={num_threads}), 0)
"""
    assert python(code).stdout == "interrupted\n"


# ---- concurrent calls ----------------------------------------------------------------


def test_concurrent_calls_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(2)

    def crops(number: int, num_threads: int) -> bytes:
        image = np.full((2, 30 + number, 40, 3), number, np.float32) + rows[: 30 + number]
        return cropkit.crop_and_resize(
            image, boxes, indices, (40, 30), num_threads=num_threads
        ).tobytes()

    rows = np.arange(100, dtype=np.float32)[:, None, None]
    boxes = rng.random((30, 4), np.float32)
    indices = np.arange(30) % 2
    expected = [crops(number, 1) for number in range(16)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(crops, range(16), [1, 2, 3, 4] * 4)) == expected


def test_first_calls_from_many_threads_at_once() -> None:
    code = """
import threading
import cropkit
image = [[[[1.0], [2.0]], [[3.0], [4.0]]]]
barrier, results = threading.Barrier(16), []
def call():
    barrier.wait()
    results.append(cropkit.crop_and_resize(image, [[0, 0, 1, 1]], [0], (1, 1), num_threads=2).item())
threads = [threading.Thread(target=call) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(results == [2.5] * 16)
"""  # noqa: E501
    assert python(code).stdout == "True\n"


# ---- how many ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_the_result_does_not_depend_on_the_thread_count(method: str, dtype: str) -> None:
    image = np.random.default_rng(3).integers(0, 256, (3, 70, 90, 3), np.uint8)
    for num_boxes, crop_size in [(1, (300, 200)), (3, (7, 5)), (50, (30, 40))]:
        boxes = np.random.default_rng(num_boxes).uniform(-0.2, 1.2, (num_boxes, 4))
        indices = np.arange(num_boxes) % 3
        results = {
            cropkit.crop_and_resize(
                image, boxes, indices, crop_size, method, dtype=dtype, num_threads=count
            ).tobytes()
            for count in (None, 1, 2, 3, 4, 5, 64)
        }
        assert len(results) == 1


@openmp
def test_num_threads_is_how_many_threads_run() -> None:
    # GNU OpenMP keeps a team between calls, so a process' threads show the largest team.
    code = """
def threads():
    return len(os.listdir("/proc/self/task"))
counts = []
for count in (1, 2, 5):
    call(count)
    counts.append(threads())
json.dump([counts[1] - counts[0] + 1, counts[2] - counts[0] + 1], sys.stdout)
"""
    assert ask(code.replace("assert right()", "")) == [1, 4]


def test_a_huge_num_threads_is_capped() -> None:
    assert _threads.team_size(10**6, 10**9) == max(64, os.cpu_count() or 1)
    assert ask("json.dump(right(10**6), sys.stdout)") is True


def test_a_small_call_starts_no_team() -> None:
    assert _threads.team_size(None, 1000) == 1


needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="needs a system that has CPU affinity: Linux"
)


@needs_affinity
def test_affinity_limits_the_team() -> None:
    code = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
json.dump(_threads.team_size(None, 10**9), sys.stdout)
"""
    assert ask(code) == 1


@openmp
@needs_affinity
def test_bound_threads_do_not_shrink_the_team() -> None:
    """OpenMP binds the calling thread to one CPU, which is then all that its affinity says."""
    code = "assert right(); json.dump(_threads.default_team_size(), sys.stdout)"
    free = ask(code)
    assert ask(code, OMP_PROC_BIND="true") == free
    assert ask(code, OMP_PROC_BIND="false") == free


@openmp
@needs_affinity
def test_an_explicit_omp_num_threads_wins() -> None:
    code = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
_threads._quota = lambda: 1
json.dump(_threads.team_size(None, 10**9), sys.stdout)
"""
    assert ask(code, OMP_NUM_THREADS=3) == 3
    assert ask(code, OMP_NUM_THREADS=3, CROPKIT_NUM_THREADS=2) == 2
    assert ask(code) == 1


def test_the_quota_limits_the_team(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_threads, "_affinity", lambda: 8)
    monkeypatch.setattr(_threads._openmp(), "openmp_max_threads", lambda: 16)
    monkeypatch.setattr(_threads, "_quota", lambda: 3)
    assert _threads.default_team_size() == 3
    monkeypatch.setattr(_threads, "_quota", lambda: _threads._NO_QUOTA)
    assert _threads.default_team_size() == 8


# ---- without OpenMP ------------------------------------------------------------------


@pytest.mark.build
def test_a_build_without_openmp_works(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignored)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    # One instruction set is enough, and builds in a third of the time.
    setup = (tmp_path / "setup.py").read_text()
    for line in setup.splitlines(keepends=True):
        if line.strip().startswith(('"avx2":', '"avx512":')):
            setup = setup.replace(line, "")
    (tmp_path / "setup.py").write_text(setup)
    built = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=tmp_path, env=os.environ | {"CROPKIT_BUILD_OPENMP": "0"},
        capture_output=True, text=True, check=False, timeout=4 * PATIENCE,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    code = """
import io
stream = io.StringIO()
cropkit.show_runtime(stream)
with open("/proc/self/maps") as maps:
    openmp = "libgomp" in maps.read()
json.dump([cropkit.__file__, _threads.team_size(None, 10**9), right(3), fork(), openmp,
           stream.getvalue()], sys.stdout)
"""
    where, team, same, child, openmp, text = ask(FORK + code, PYTHONPATH=tmp_path / "src")
    assert where.startswith(str(tmp_path))
    assert (team, same, child, openmp) == (1, True, 0, False)
    assert "threads: 1 (built without OpenMP)\n" in text
