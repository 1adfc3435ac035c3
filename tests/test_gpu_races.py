"""The GPU kernels in Oclgrind, which interprets each work-item and watches every access.

Debian's package ``oclgrind`` puts its own device in the place of all others. It has no
memory in common with the host and divides inexactly, so these ways are taken too.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cropkit_gpu import _launches

pytestmark = pytest.mark.gpu

CALLS = """
import itertools, sys
import numpy as np
import cropkit
from cropkit_gpu import _launches
from cropkit.testing._suite import same_sums
from tests.support.cases import METHODS, pixels
from tests.support.bits import assert_bits_equal

if len(sys.argv) > 1:
    text = _launches.source().replace(sys.argv[1], "")
    _launches.source = lambda: text
boxes, indices = [[0, 0, 1, 1], [0.9, 1.1, 0.2, 0.3], [-0.1, 0.4, 0.6, 0.4]], [1, 0, 1]
ways = itertools.product((("uint8", 3), ("float32", 4), ("float16", 9)), METHODS, ("f4", "f8"))
for (dtype, depth), method, real in ways:
    image = pixels((2, 5, 6, depth), dtype)[:, ::-1]
    grads = pixels((3, 4, 7, depth), dtype, 1)
    for function, arguments in (
        (cropkit.crop_and_resize, (image, boxes, indices, (4, 7), method)),
        (cropkit.crop_and_resize_grad_image, (grads, boxes, indices, image.shape, method)),
        (cropkit.crop_and_resize_grad_boxes, (grads, image, boxes, indices)),
    ):
        result = function(*arguments, dtype=real, backend="opencl")
        expected = function(*arguments, dtype=real, backend="reference")
        if function is cropkit.crop_and_resize_grad_boxes:
            same_sums(result, expected, grads, image, "boxes")
        else:
            assert_bits_equal(result, expected)
print("equal to the reference")
"""


def oclgrind(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `CALLS` on Oclgrind's device."""
    program = shutil.which("oclgrind")
    if program is None:
        pytest.skip("oclgrind is not installed: apt-get install oclgrind")
    environment = {name: value for name, value in os.environ.items() if name != "PYOPENCL_CTX"}
    return subprocess.run(
        [program, "--data-races", sys.executable, "-c", CALLS, *arguments],
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_no_races_and_nothing_out_of_bounds() -> None:
    child = oclgrind()
    assert child.stdout.splitlines() == ["equal to the reference"], child.stdout + child.stderr
    assert child.stderr == ""


def test_a_missing_barrier_is_found() -> None:
    assert "barrier(CLK_LOCAL_MEM_FENCE)" in _launches.source()
    child = oclgrind("barrier(CLK_LOCAL_MEM_FENCE)")
    assert "data race at local memory" in child.stdout + child.stderr
