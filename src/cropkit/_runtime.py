"""The text for a bug report: versions, instruction set, threads, and every backend's state."""

import os
import platform
import sys
from collections.abc import Callable
from typing import TextIO

import numpy as np

from cropkit._backends import list_backends

_VARIABLES = (
    "CROPKIT_BACKEND",
    "CROPKIT_ISA",
    "CROPKIT_NUM_THREADS",
    "CROPKIT_REUSE_MEMORY",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
)


def show_runtime(file: TextIO | None = None) -> None:
    """Print versions, the CPU's instruction sets, the threads and the backends.

    The text belongs into a bug report; ``python -m cropkit info`` prints it, too.

    Parameters
    ----------
    file : file-like, optional
        The file to print to; the standard output by default.

    Examples
    --------
    >>> import cropkit
    >>> cropkit.show_runtime()  # doctest: +ELLIPSIS
    cropkit ...
    """
    print(runtime_text(), file=file)


def run_in_pipe(main: Callable[[], int]) -> int:
    """Run a command; return its exit status, 1 if its reader has gone (``... | head -1``)."""
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes the standard output once more at its end, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def runtime_text() -> str:
    """Return what `show_runtime` prints."""
    import cropkit

    lines = [
        f"cropkit {cropkit.__version__}",
        f"Python {platform.python_version()}, NumPy {np.__version__}, "
        f"{platform.system()} {platform.machine()}",
        f"instruction set: {_instruction_set_text()}",
        f"threads: {_threads_text()}",
    ]
    settings = [f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ]
    lines.append(f"environment: {', '.join(settings) or 'nothing set'}")
    lines.append("backends:")
    for info in list_backends():
        state = "usable" if info.reason is None else f"not usable: {info.reason}"
        kind = "" if info.exact is None else ", exact" if info.exact else ", not exact"
        devices = f" on {', '.join(info.device_types)}" if info.device_types else ""
        lines.append(f"  {info.name} ({info.origin}){devices}{kind}: {state}")
    return "\n".join(lines)


def _instruction_set_text() -> str:
    from cropkit import _cpu

    usable = f"(usable: {', '.join(_cpu.built_instruction_sets())})"
    try:
        return f"{_cpu.backend.isa} {usable}"
    except ValueError as error:
        return f"none: {error}"


def _threads_text() -> str:
    """Say how many threads a large call uses, and what decides the number."""
    from cropkit import _threads

    version = _threads.openmp_version()
    library = f"OpenMP {version}" if version else "built without OpenMP"
    try:
        return f"{_threads.team_size(None, sys.maxsize)} ({library})"
    except ValueError as error:
        return f"none: {error} ({library})"
