"""A system that refuses threads: a call runs on fewer, and the process goes on."""

import json
from typing import Any

from tests.support.children import python

# Without the cure OpenMP ends the process: "Thread creation failed", exit status 1.
CALLS = """
import json, os, resource, sys
import numpy as np
import cropkit
from cropkit._kernels import _openmp
image = np.random.default_rng(0).random((2, 40, 50, 3), np.float32)
boxes = np.random.default_rng(1).random((40, 4), np.float32)
indices = np.arange(40) % 2
def crops(num_threads):
    return cropkit.crop_and_resize(image, boxes, indices, (50, 50), num_threads=num_threads)
expected_crops = crops(1).tobytes()
grads = np.ones((40, 50, 50, 3), np.float32)
def all_three(num_threads):
    cropkit.crop_and_resize_grad_image(grads, boxes, indices, image.shape, num_threads=num_threads)
    cropkit.crop_and_resize_grad_boxes(grads, image, boxes, indices, num_threads=num_threads)
    return crops(num_threads).tobytes() == expected_crops, len(os.listdir("/proc/self/task"))
_openmp.pause()
before = all_three(1)[1]
"""


def ask(code: str, **environment: Any) -> Any:
    """Run `code` after `CALLS` in a child; what it dumps as JSON."""
    return json.loads(python(CALLS + code, **environment).stdout)


def test_a_limit_of_threads_makes_the_team_smaller() -> None:
    """Three threads are allowed: three are used, and a call for eight has no new one."""
    code = """
if os.getuid() == 0:  # whom no limit holds
    os.setgroups([])
    os.setgid(54321)
    os.setuid(54321)
    resource.setrlimit(resource.RLIMIT_NPROC, (3, 3))
    several = 3
else:  # how many this user has is not known
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    several = 1
seen = []
for _ in range(40):
    seen += [all_three(8), all_three(3)]
    _openmp.pause()
expected = [(True, before), (True, before + several - 1)] * 40
json.dump([seen == expected, seen[:2], before], sys.stdout)
"""
    found = ask(code, OPENBLAS_NUM_THREADS=1)
    assert found[0], found


def test_no_memory_for_stacks_makes_the_team_smaller() -> None:
    code = """
with open("/proc/self/statm", "rb") as statm:
    mapped = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 30), mapped + (1 << 30)))
json.dump([all_three(4), before], sys.stdout)
"""
    (same, threads), before = ask(code, OPENBLAS_NUM_THREADS=1, OMP_STACKSIZE=" 2 G ")
    assert same
    assert threads == before
