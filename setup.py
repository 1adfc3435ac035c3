"""Build of the compiled modules: one extension per instruction set, from one source.

Everything else about the package stands in ``pyproject.toml``.

Environment
-----------
CROPKIT_BUILD_OPENMP
    ``1`` compiles with OpenMP, ``0`` without: kernels then run on one thread. Default: ``1``, but
    on macOS, whose compiler brings none, ``1`` where LLVM's libomp is found.
CROPKIT_BUILD_SANITIZE
    For developers: a list for ``-fsanitize=``, for example ``address,undefined``. A finding
    ends the process, and what a kernel reads of its scratch without having written it is NaN.
CROPKIT_BUILD_LIMITED_API
    ``1`` (default) uses CPython's stable interface of 3.11 alone, so that the wheel is for every
    later Python too; ``0`` (default on free-threaded Pythons, which lack it) all of it.
CROPKIT_BUILD_JOBS
    How many compilers run at once (default: the CPUs this process may use).
"""

import hashlib
import os
import platform
import re
import sys
import sysconfig
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

KERNELS = Path("src/cropkit/_kernels")
WITHOUT_OPENMP = ("_features", "_checks", "_memory")

# Flags of each instruction set. The choice among them is made at run time by
# ``_features.pyx``; the builder's own CPU is never looked at.
INSTRUCTION_SETS = {
    "x86_64": {
        "baseline": [],
        "avx2": ["-mavx2"],
        "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
    },
    "aarch64": {"neon": []},
}
# By what the target's platform is called: linux-x86_64, macosx-14.0-arm64, win-amd64.
PROCESSORS = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
# Where conda and, on arm64 and x86-64, Homebrew put LLVM's OpenMP.
LIBOMP = (os.environ.get("CONDA_PREFIX"), "/opt/homebrew/opt/libomp", "/usr/local/opt/libomp")

# Contraction to fused multiply-add would change bits (docs/design/exactness.md); aarch64
# contracts by default. No -fno-trapping-math either: with it GCC 12 makes a cast to integer and
# back a truncation, which keeps the sign of -0.0. -O3 rather than -O2: the loaders and blends
# rely on vectorization.
COMPILE = ["-O3", "-ffp-contract=off", "-fno-math-errno", "-g0"]
LINK: list[str] = []


def flag(name: str, default: str) -> bool:
    """Read a 0/1 switch from the environment; anything else is an error."""
    value = os.environ.get(name, default)
    if value not in ("0", "1"):
        raise SystemExit(f"{name}={value!r}: expected 0 or 1")
    return value == "1"


def target() -> str:
    """Return the platform that is built for, which need not be the builder's."""
    platform_name = sysconfig.get_platform()
    if not platform_name.startswith("macosx"):
        return platform_name
    system, _, processor = platform_name.rpartition("-")
    asked = set(re.findall(r"-arch\s+(\S+)", os.environ.get("ARCHFLAGS", "")))
    if len(asked) > 1:
        raise SystemExit(
            f"ARCHFLAGS={os.environ['ARCHFLAGS']!r}: expected one processor, since each has "
            "kernels of its own: build a wheel for each"
        )
    if asked:
        processor = asked.pop()
    elif processor.startswith("universal"):  # such a Python compiles for both by default
        processor = platform.machine()
    os.environ["ARCHFLAGS"] = f"-arch {processor}"  # which setuptools' compiler reads
    os.environ["_PYTHON_HOST_PLATFORM"] = f"{system}-{processor}"  # and what names a wheel
    return sysconfig.get_platform()


def openmp() -> tuple[list[str], list[str]]:
    """Return the flags that compile with OpenMP, and those that link with it."""
    if not flag("CROPKIT_BUILD_OPENMP", "1"):
        return [], []
    if not TARGET.startswith("macosx"):
        return ["-fopenmp"], ["-fopenmp"]
    # Apple's clang knows OpenMP, but not by that flag, and has neither header nor library.
    places = [Path(place) for place in LIBOMP if place]
    for place in places:
        if (place / "include" / "omp.h").exists():
            compile_flags = ["-Xclang", "-fopenmp", f"-I{place}/include"]
            return compile_flags, [f"-L{place}/lib", "-lomp"]
    missing = f"no OpenMP in {', '.join(map(str, places))}: brew install libomp"
    if "CROPKIT_BUILD_OPENMP" in os.environ:
        raise SystemExit(f"CROPKIT_BUILD_OPENMP=1: {missing}")
    print(f"cropkit is built without threads: {missing}", file=sys.stderr)
    return [], []


def jobs() -> int:
    """Return the number of compilers to run at once."""
    default = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return int(os.environ.get("CROPKIT_BUILD_JOBS", default))


TARGET = target()
PROCESSOR = next((PROCESSORS[name] for name in PROCESSORS if name in TARGET), "")
VARIANTS = INSTRUCTION_SETS.get(PROCESSOR, {"baseline": []})
OPENMP, LINK_OPENMP = openmp()
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
LIMITED = flag("CROPKIT_BUILD_LIMITED_API", "0" if FREE_THREADED else "1")
if LIMITED and FREE_THREADED:
    raise SystemExit("CROPKIT_BUILD_LIMITED_API=1: free-threaded Pythons lack this interface")
MACROS = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")]
MACROS += [("Py_LIMITED_API", "0x030b0000"), ("CYTHON_LIMITED_API", "1")] if LIMITED else []
if sanitizers := os.environ.get("CROPKIT_BUILD_SANITIZE"):
    LINK = [f"-fsanitize={sanitizers}"]
    COMPILE += [*LINK, "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-O1", "-g"]
    COMPILE += ["-DCROPKIT_POISON"]


def extension(name: str, flags: list[str]) -> Extension:
    """Describe one compiled module."""
    # Only what needs OpenMP links with it: the first to load it sets how its idle workers
    # spin (``_threads.py``), and the linker's --as-needed is not everywhere the default.
    compile_openmp, link_openmp = ([], []) if name in WITHOUT_OPENMP else (OPENMP, LINK_OPENMP)
    return Extension(
        f"cropkit._kernels.{name}",
        [str(KERNELS / f"{name}.pyx")],
        include_dirs=[numpy.get_include(), str(KERNELS)],
        define_macros=MACROS,
        py_limited_api=LIMITED,
        extra_compile_args=COMPILE + compile_openmp + flags,
        extra_link_args=LINK + link_openmp,
        # Cython knows what a .pyx includes from Cython, and nothing of these.
        depends=[str(header) for header in KERNELS.glob("*.h")],
    )


extensions = [extension(name, []) for name in (*WITHOUT_OPENMP, "_openmp")]
extensions += [extension(f"_{name}", flags) for name, flags in VARIANTS.items()]

# Neither Cython nor setuptools notices other flags or directives, only newer files: each
# configuration builds in a folder of its own.
COMPILER = [os.environ.get(name) for name in ("CC", "CFLAGS", "LDFLAGS")]
CONFIGURATION = (
    f"{Path(__file__).read_text()} {TARGET} {OPENMP} {LINK} {MACROS} {COMPILER} {numpy.__version__}"
)
BUILD = f"build/{hashlib.sha256(CONFIGURATION.encode()).hexdigest()[:8]}"


class BuildExt(build_ext):
    """Compile the modules."""

    def build_extensions(self) -> None:
        """Compile them, unless the compiler cannot."""
        if self.compiler.compiler_type == "msvc":
            raise SystemExit(
                "MSVC's cl lacks the vector extensions of GNU C, which cropkit is written in: use "
                "MinGW-w64 (python setup.py build_ext --compiler=mingw32)"
            )
        super().build_extensions()

    def copy_extensions_to_source(self) -> None:
        """Put them beside their sources, and away what would be imported in their place."""
        super().copy_extensions_to_source()
        if LIMITED:
            for each in KERNELS.glob(f"*{sysconfig.get_config_var('EXT_SUFFIX')}"):
                each.unlink()


setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=cythonize(
        extensions,
        build_dir=f"{BUILD}/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "freethreading_compatible": True,
            "autotestdict": False,
        },
    ),
    options={
        "build": {"build_base": BUILD},
        "build_ext": {"parallel": jobs()},
        "bdist_wheel": {"py_limited_api": "cp311"} if LIMITED else {},
    },
)
