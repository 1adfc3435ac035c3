"""How many threads a call uses, and how cropkit avoids four troubles of OpenMP teams.

Each trouble was met on real machines:

fork
    A child of ``fork`` inherits the team's book-keeping without its threads and hangs in
    its first parallel region. The team is dissolved before each fork; where that fails,
    the child runs on one thread.
spinning
    Idle workers of GNU OpenMP spin for up to milliseconds. With a second OpenMP in the
    process (PyTorch brings one), both teams spin against each other. The spin count is
    set low while the library is loaded, unless the user has chosen.
quotas
    In a container, OpenMP sees the machine's CPUs and not the control group's quota. The
    quota is read here, and bounds the team.
refused threads
    GNU OpenMP ends the process where the system refuses it a thread. Before a team grows,
    the kernels try to start as many threads, and run on fewer if that fails (``_team.h``).
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from numpy.typing import NDArray

from cropkit._kernels._checks import in_environment
from cropkit._system import read, whole_number

# Below this many values of the crops or of the image's gradient, and of the gradients from which
# the boxes' gradient is summed, waking a team costs more than it saves (docs/design/threads.md).
SERIAL_VALUES: Final = 1 << 18
SERIAL_SUMS: Final = 1 << 17
# The same where rows come from an image of so many bytes, which does not stay in a CPU's caches:
# each thread waits for memory on its own.
_SERIAL_FAR: Final = 1 << 15
_FAR_BYTES: Final = 1 << 21
# A team larger than this is never started, whatever is asked for.
_MAX_THREADS: Final = max(64, os.cpu_count() or 1)
_SPIN_COUNT: Final = "1000"
# With one of these variables, OpenMP binds the thread that loads it to one CPU, and the affinity
# no longer tells the CPUs of the process. OpenMP's maximum honours the affinity from before.
_BINDING: Final = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")
_NO_QUOTA: Final = 1 << 30

# Whether this process is the child of a fork that left it a team without its threads.
_orphaned = False
_fork = threading.local()  # .parted: whether this thread's team was dissolved before its fork


def team_size(
    num_threads: int | None,
    values: int,
    image: NDArray[Any] | None = None,
    few: int = SERIAL_VALUES,
) -> int:
    """Return the number of threads for a call of `values` values that reads `image`.

    The number is `num_threads`, else ``CROPKIT_NUM_THREADS``, else 1 for a small result, else
    `default_team_size`.
    """
    if _orphaned:
        return 1
    if num_threads is None:
        num_threads = _from_environment("CROPKIT_NUM_THREADS")
    if num_threads is None:
        small = values < _SERIAL_FAR or (
            values < few and (image is None or image.nbytes < _FAR_BYTES)
        )
        num_threads = 1 if small else default_team_size()
    return min(num_threads, _MAX_THREADS)


def default_team_size() -> int:
    """Return OpenMP's maximum, the CPUs of this process or its quota, whichever is least.

    An explicit ``OMP_NUM_THREADS`` overrides the other two. In a worker of PyTorch's
    ``DataLoader`` the limit is PyTorch's own number of threads there, which is one.
    """
    maximum: int = _openmp().openmp_max_threads()
    in_worker = getattr(sys.modules.get("torch.utils.data"), "get_worker_info", None)
    if in_worker is not None and in_worker() is not None:
        maximum = min(maximum, sys.modules["torch"].get_num_threads())
    if os.environ.get("OMP_NUM_THREADS"):
        return maximum
    return max(1, min(maximum, _affinity(), _quota()))


def within(limit: int, num_threads: int | None, values: int) -> int | None:
    """Return the ``num_threads`` for a call from a framework that uses at most `limit` threads.

    `num_threads` is returned unchanged if it or ``CROPKIT_NUM_THREADS`` is set, or the call is
    small.
    """
    if (
        num_threads is not None
        or values < _SERIAL_FAR
        or _from_environment("CROPKIT_NUM_THREADS") is not None
        or limit >= default_team_size()
    ):
        return num_threads
    return max(limit, 1)


def openmp_version() -> int:
    """Return the date (``yyyymm``) of the OpenMP specification compiled against, or 0."""
    version: int = _openmp().openmp_version()
    return version


def _from_environment(name: str) -> int | None:
    if not in_environment(name.encode()):
        return None
    text = os.environ.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
        raise ValueError(f"{name}={text!r}: expected a positive integer")
    return int(text)


def _affinity() -> int:
    bound = any(os.environ.get(name, "false").lower() != "false" for name in _BINDING)
    if hasattr(os, "sched_getaffinity") and not bound:
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _quota(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> int:
    """Return the CPUs that this process' control groups allow, rounded up, or `_NO_QUOTA`.

    Control groups of version 2 (``cpu.max``) and version 1 (``cpu.cfs_quota_us``) are read. The
    least quota on the way to the root holds. Inside a container, the path of a group may name
    folders that only the host sees; the quota of the root is then the container's.
    """
    least = _NO_QUOTA
    for line in read(groups).splitlines():
        _, _, fields = line.partition(b":")
        controllers, colon, path = fields.partition(b":")
        if not colon or (controllers and b"cpu" not in controllers.split(b",")):
            continue
        base = root / "cpu" if controllers else root  # "cpu" is a link to "cpu,cpuacct"
        folder = base / os.fsdecode(path.lstrip(b"/"))
        for group in [folder, *folder.parents]:
            least = min(least, _group_quota(group))
            if group == base:
                break
    return least


def _group_quota(group: Path) -> int:
    """Return the CPUs that one group allows; `_NO_QUOTA` for ``max``, -1 or what is no number."""
    words = read(group / "cpu.max").split()
    if len(words) != 2:
        words = [
            read(group / "cpu.cfs_quota_us").strip(),
            read(group / "cpu.cfs_period_us").strip(),
        ]
    quota, period = map(whole_number, words)
    if quota is None or not period:
        return _NO_QUOTA
    return max(1, -(-quota // period))


# ---- fork and spinning ---------------------------------------------------------------


@cache
def _openmp() -> ModuleType:
    with short_spinning():
        from cropkit._kernels import _openmp
    return _openmp


def _before_fork() -> None:
    # A team without its threads cannot be dissolved: the call would wait for the threads.
    _fork.parted = not _orphaned and _openmp().pause()


def _after_fork_in_child() -> None:
    global _orphaned
    _orphaned = not _fork.parted


@cache
def guard_forks() -> None:
    """From now on, dissolve the team before every fork."""
    _openmp()  # imported here, so that a fork need not import it
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)


@contextmanager
def short_spinning() -> Iterator[None]:
    """Make an OpenMP that is loaded inside this block keep its idle workers from spinning."""
    chosen = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    if any(name in os.environ for name in chosen):
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)  # another thread may have removed it already
