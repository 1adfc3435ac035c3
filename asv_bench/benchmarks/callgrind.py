"""Count the instructions of the kernels under valgrind's callgrind.

Wall time on a shared machine drifts by a factor of two; the instructions that one thread
executes in the kernels do not drift at all. The same binary gives the same count.

One process runs all cases. It asks valgrind, by client requests, to count during one call
at a time and to write one profile a call. From each profile are summed:

* what was executed in a kernel module (``cropkit/_kernels/*.so``), whatever its functions
  are called or inlined into;
* plus what those functions called elsewhere in C (memcpy, qsort), less the way back into
  the module; not the allocator, whose count depends on the heap, and not Python or NumPy.

Valgrind 3.19 knows no AVX-512, so these are the counts of the other instruction sets.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import cropkit

KERNELS = Path(cropkit.__file__).parent / "_kernels"
CASES_SCRIPT = Path(__file__).with_name("callgrind_cases.py")

# Where the count of a call out of the kernels stops.
_NOT_COUNTED_OBJECTS = re.compile(r"python|numpy|libgomp|ld-linux")
_NOT_COUNTED_FUNCTIONS = re.compile(r"(malloc|free|calloc|realloc|memalign)")
# Nothing of the user's environment or of the CPU's model may reach the counted calls.
_ENVIRONMENT = {
    "GLIBC_TUNABLES": ":".join(
        f"glibc.cpu.{name}={1 << 30}"  # else memcpy chooses its loop by the CPU's caches
        for name in ("x86_rep_movsb_threshold", "x86_rep_stosb_threshold")
    ),
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "LD_BIND_NOW": "1",  # else the first call of memcpy counts the linker's work
    "LC_ALL": "C",
}


def missing() -> str | None:
    """Return why nothing can be counted here, or None."""
    try:
        subprocess.run(["valgrind", "--version"], capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "valgrind is not installed (Debian: apt-get install valgrind)"
    return None


def count(select: str = "") -> dict[str, int]:
    """Return the instructions of every case whose name contains `select`.

    Raises
    ------
    RuntimeError
        The cases do not run under valgrind; the message is what they wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("CROPKIT_")
        }
        environment |= _ENVIRONMENT
        # The package that this process imported, from wherever it was started.
        environment["PYTHONPATH"] = str(KERNELS.parent.parent)
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--compress-strings=no"]
        command += ["--compress-pos=no", "--dump-line=no", f"--callgrind-out-file={folder}/profile"]
        command += [sys.executable, str(CASES_SCRIPT), select]
        done = subprocess.run(
            command, env=environment, cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the cases failed under valgrind:\n{done.stdout}{done.stderr}")
        counts = {}
        for path in Path(folder).glob("profile.*"):
            text = path.read_text()
            if case := re.search(r"^desc: Trigger: Client Request: (.+)$", text, re.MULTILINE):
                counts[case[1]] = sum(by_function(text).values())
    return dict(sorted(counts.items()))


def by_function(profile: str) -> dict[str, int]:
    """Sum a profile's instructions for each function of the kernels.

    A call out of the kernels is added under the name of what it calls.
    """
    totals: dict[str, int] = {}
    object_name = function = callee_object = callee = ""
    after_call = False
    for line in profile.splitlines():
        key, _, value = line.partition("=")
        if key == "ob":
            object_name = value
        elif key == "fn":
            function = value
        elif key == "cob":
            callee_object = value
        elif key == "cfn":
            callee = value
        elif key == "calls":
            after_call = True
        elif line[:1].isdigit():
            instructions = int(line.split()[1])
            here = _is_kernel(object_name)
            if not after_call:
                if here:
                    totals[function] = totals.get(function, 0) + instructions
                continue
            after_call = False
            there = _is_kernel(callee_object or object_name)
            if here and not there and _counted(callee_object, callee):
                totals[callee] = totals.get(callee, 0) + instructions
            elif there and not here and _counted(object_name, function):
                totals[function] = totals.get(function, 0) - instructions
            callee_object = ""
    return totals


def _is_kernel(object_name: str) -> bool:
    return "/cropkit/_kernels/" in object_name


def _counted(object_name: str, function: str) -> bool:
    """Whether a function outside the kernels belongs to their work."""
    if _NOT_COUNTED_OBJECTS.search(object_name):
        return False
    return not _NOT_COUNTED_FUNCTIONS.search(function)


def toolchain(kernels: Path = KERNELS) -> str:
    """Return what made the kernels, as they say: ``GCC 12.2.0, Cython 3.3.1``.

    Another compiler makes other instructions of the same source.
    """
    data = next(kernels.glob("_baseline.*.so")).read_bytes()
    compiler = re.search(rb"(GCC): \([^)]*\) ([\d.]+)|(clang) version ([\d.]+)", data)
    cython = re.search(rb"_cython_(\d+(?:_\d+)+)", data)
    made_by = " ".join(part.decode() for part in compiler.groups() if part) if compiler else "?"
    return f"{made_by}, Cython {cython[1].decode().replace('_', '.') if cython else '?'}"
