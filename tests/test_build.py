"""What a build is refused under, and what one for a system without mmap does."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.children import python

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "src" / "cropkit" / "_kernels"


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
@pytest.mark.parametrize(
    ("command", "environment", "sentence"),
    [
        (
            ["build_ext"],
            {
                "_PYTHON_HOST_PLATFORM": "macosx-11.0-universal2",
                "ARCHFLAGS": "-arch arm64 -arch x86_64",
            },
            "ARCHFLAGS='-arch arm64 -arch x86_64': expected one processor",
        ),
        (
            ["build_ext"],
            {"_PYTHON_HOST_PLATFORM": "macosx-11.0-arm64", "CROPKIT_BUILD_OPENMP": "1"},
            "CROPKIT_BUILD_OPENMP=1: no OpenMP in /opt/homebrew/opt/libomp, /usr/local/opt/libomp",
        ),
        (["build_ext", "--compiler=msvc"], {}, "MSVC's cl lacks the vector extensions of GNU C"),
    ],
    ids=["two-processors", "no-libomp", "msvc"],
)
def test_a_build_that_cannot_be_stops_with_a_sentence(
    command: list[str], environment: dict[str, str], sentence: str
) -> None:
    inherited = {name: value for name, value in os.environ.items() if name != "CONDA_PREFIX"}
    stopped = subprocess.run(
        [sys.executable, "setup.py", "--quiet", *command],
        cwd=ROOT, env=inherited | environment,
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert stopped.returncode != 0
    assert stopped.stderr.splitlines()[-1].startswith(sentence)


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
