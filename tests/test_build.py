"""What a build is refused under, and what one for a system without mmap does."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.children import python

KERNELS = Path(__file__).parents[1] / "src" / "cropkit" / "_kernels"


def compile_with(*flags: str) -> subprocess.CompletedProcess[str]:
    """Check the header that every kernel includes, under a build's flags."""
    compiler = shutil.which("gcc")
    assert compiler, "gcc is missing"
    header = '#include "_environment.h"\n'
    return subprocess.run(
        [compiler, "-fsyntax-only", f"-I{KERNELS}", *flags, "-xc", "-"],
        input=header, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.build
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["-ffast-math"], "cropkit cannot be built with -ffast-math or -Ofast"),
        (["-Ofast"], "cropkit cannot be built with -ffast-math or -Ofast"),
        (["-ffinite-math-only"], "cropkit cannot be built with -ffast-math or -Ofast"),
        (
            ["-U__SIZEOF_POINTER__", "-D__SIZEOF_POINTER__=4"],
            "cropkit cannot be built for a 32-bit system",
        ),
        (["-U__SSE2__", "-U__aarch64__"], "cropkit is for x86-64 with SSE2 and for AArch64"),
    ],
    ids=["fast-math", "Ofast", "finite-math", "32-bit", "no-flush"],
)
def test_a_build_that_would_break_a_promise_is_refused(flags: list[str], sentence: str) -> None:
    refused = compile_with(*flags)
    assert refused.returncode != 0
    assert f'error: #error "{sentence}' in refused.stderr


@pytest.mark.build
def test_the_flags_of_a_usual_build_are_taken() -> None:
    assert compile_with("-O3", "-ffp-contract=off", "-fno-math-errno").stderr == ""


@pytest.mark.build
def test_large_results_where_the_system_maps_nothing(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("_memory*.so", "__pycache__")
    shutil.copytree(KERNELS.parents[1], tmp_path, dirs_exist_ok=True, ignore=ignored)
    name = tmp_path / "cropkit" / "_kernels" / "_memory"
    source = tmp_path / "_memory.c"
    cython = [sys.executable, "-m", "cython", "-3", "-o", str(source), f"{name}.pyx"]
    subprocess.run(cython, check=True, timeout=60)
    built = f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-DCROPKIT_NO_MMAP",
         f"-I{sysconfig.get_path('include')}", str(source), "-o", built],
        check=True, timeout=60,
    )  # fmt: skip
    code = """
import numpy as np, cropkit
print(cropkit._kernels._memory.__file__)
image = np.ones((1, 4, 4, 1), np.float32)
print(cropkit.crop_and_resize(image, [[0, 0, 1, 1]] * 2, [0, 0], (1024, 1024)).sum())
"""
    where, total = python(code, PYTHONPATH=tmp_path).stdout.split()
    assert where == built
    assert float(total) == 2 << 20
